"""What an evaluation leaves behind: a summary and long-form tables, kept in one folder.

`summary` says what was measured: `name`, `target` (checkpoint, huggingface, trace), `source` (path or hub name),
`layer_ids`, `num_experts`, `top_k`, `vocab_size`, `domains`, `samples_per_domain`, `sequence_length` (of the longest;
`shortest_sequence` and `num_sequences` stand beside it, absent in older folders),
`total_parameters` and `active_parameters` (None where unknown), `text` (`words` and `fingerprint`; None
where routing was recorded elsewhere, absent in older folders), `loss` (mean over domains, None where unknown),
`settings` of the metrics and the `version` of their counting (absent in older folders).

`tables` are those of `moe_toy.metrics.analyze` (srp, cache, specialization, load), and

- `balance`: layer, domain (empty where pooled), scope (corpus, sequence, segment), cv, max_violation, entropy,
  dead_experts;
- `nulls`: metric (srp, sch), segment_length, cache_ratio (sch), raw, corpus, domain, sequence, token: the score of the
  model beside that of each null model;
- `correlations`: x, y, segment_length, cache_ratio, r, rows (how many pairs);
- `tokens`: layer, expert, kind (input, predicted, target), rank, token_id, token, strength: the strongest of an expert;
- `loss`: domain, loss, bits_per_byte;
- `experts`: layer, expert, domain (that chooses it most often; empty for a dead expert), tokens (that chose it), share
  (of these, from the domain, had all domains equally many tokens), domain_share (of the domain's tokens, those that
  chose it), lift (share times the number of domains), belongs (chosen by the domain at least twice as often as by the
  others on average);
- `positions`: position (middle of the segment), segment_length, srp: of the model, by place in the sequence;
- `coactivation`: layer, expert, partner, tokens (that chose both), share (of the expert's tokens): the strongest 20 of
  each layer;
- `offload` (only with `offload`): policy (resident: all experts at hand), cache_ratio, capacity, domain, tokens,
  tokens_per_second, ms_per_token, predicted_ms, its parts compute_ms, stall_ms and management_ms, hit_rate,
  simulated_hit_rate, reads_per_token, bytes_per_token, speculative_hit_rate (asked for, not in the cache, but loaded
  ahead), speculative_bytes_per_token (loaded ahead, asked for or not; bytes_per_token is without), p50_ms, p95_ms,
  p99_ms, prefill_ms, prefill_bytes (of a prompt);
- `offload_steps` (likewise): pass, policy, capacity, domain, sequence, step (0 is the prompt), seconds, stall,
  management (both in seconds), requests, reads, rounds, speculative_reads, speculative_hits, bytes,
  speculative_bytes, simulated_reads; policy calibration: of the prediction;
- `text`: domain, sequence, position, token, layer, rank, expert: a few passages with the experts of every token.

Each is a parquet and a CSV file; in the latter a text such as NA stands in quotes (`files.csv_tables.read_csv`).
Tables that a target cannot give are absent. `layer` is the row of the trace everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_toy.errors import UserError
from moe_toy.files.atomic import save_atomically
from moe_toy.files.csv_tables import write_csv
from moe_toy.files.reading import UnreadableError, reading

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "summary.json"
COMPARISON = "runs"
"""The `target` of several evaluations compared; their summary and tables are others."""
KEYS = ("name", "target", "source", "layer_ids", "num_experts", "top_k", "vocab_size", "domains", "samples_per_domain")
KEYS += ("sequence_length", "total_parameters", "active_parameters", "loss", "settings")
TABLES = ("srp", "cache", "specialization", "load", "balance", "nulls")
"""What no evaluation of a model lacks."""


@dataclass(frozen=True)
class Results:
    summary: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `tables/<name>.parquet` and `.csv`, then `summary.json`: with it a folder is whole. Tables that were
        there and are none of these go."""
        tables = folder / "tables"
        tables.mkdir(parents=True, exist_ok=True)
        for file in tables.glob("*.parquet"):
            if file.stem not in self.tables:
                file.with_suffix(".csv").unlink(missing_ok=True)
                file.unlink()
        for name, table in self.tables.items():
            with save_atomically(tables / f"{name}.parquet") as part:
                table.to_parquet(part, index=False)
            with save_atomically(tables / f"{name}.csv") as part:
                write_csv(table, part)
        with save_atomically(folder / SUMMARY) as part:
            part.write_text(json.dumps(self.summary, indent=2) + "\n")

    @staticmethod
    def load(folder: Path) -> Results:
        """Read what `save` wrote; raises `UserError` if the folder holds no finished evaluation."""
        import pandas as pd  # half a second

        path, tables = folder / SUMMARY, {}
        try:
            with reading(path):
                summary = json.loads(path.read_text())
            if not isinstance(summary, dict):
                raise ValueError("it holds no keys with values")
            for path in sorted((folder / "tables").glob("*.parquet")):
                with reading(path):
                    tables[path.stem] = pd.read_parquet(path)
        except FileNotFoundError:
            raise UserError(f"{folder} holds no finished evaluation; run evaluate.py with out_dir={folder}") from None
        except UnreadableError:
            raise
        except (ValueError, OSError) as error:  # what json and pyarrow raise on damage
            raise UserError(
                f"{path} is damaged ({' '.join(str(error).split())}); evaluate again, to another out_dir"
            ) from None
        return Results(summary, tables)

    @staticmethod
    def load_model(folder: Path) -> Results:
        """`load`, of the evaluation of one model; raises `UserError` also if a part of it is missing."""
        results = Results.load(folder)
        if results.summary.get("target") == COMPARISON:
            raise UserError(f"{folder} holds a comparison; give the folders of the models that it compares")
        missing = [f"{folder / SUMMARY} has no {key}" for key in KEYS if key not in results.summary]
        missing += [f"there is no {folder}/tables/{name}.parquet" for name in TABLES if name not in results.tables]
        if missing:
            raise UserError(f"{missing[0]}, which an evaluation of a model has; evaluate again, to another out_dir")
        return results
