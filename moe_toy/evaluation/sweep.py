"""A finished sweep, or what is finished of it."""

from __future__ import annotations

from pathlib import Path

from moe_toy.errors import UserError
from moe_toy.evaluation.output_folder import OutputFolder
from moe_toy.evaluation.run_text import recorded_fingerprint
from moe_toy.evaluation.runs import check_same_text
from moe_toy.evaluation.settings import Options
from moe_toy.files.reading import reading
from moe_toy.report.sweep_files import RESULTS, read_metrics, read_sweep
from moe_toy.results import Results
from moe_toy.runs.run_directory import TEXT


class FinishedSweep:
    """`path` is the directory of a sweep, which holds `results.parquet`; the paper's claims are checked over it."""

    def __init__(self, *, path: str | Path | None, options: Options) -> None:
        if not path:
            raise UserError(
                "target.path is missing; give the directory of a sweep, as target.path=outputs/sweeps/paper"
            )
        self.path = Path(path)
        self.options = options

    def check(self) -> None:
        with reading(self.path):
            finished = (self.path / RESULTS).is_file()
        if not finished:
            raise UserError(
                f"target.path={self.path} holds no {RESULTS}; give the directory of a sweep with a finished arm"
            )
        if not self.options.allow_different_text:
            prints = {path.parent.name: recorded_fingerprint(path.parent) for path in self.path.glob(f"*/{TEXT}")}
            check_same_text(
                {arm: {"words": "a text", "fingerprint": prints[arm]} for arm in sorted(prints)}  # that it trained on
            )

    def prepare(self, out_dir: Path) -> None:
        """Raise `UserError` where `out_dir` holds an evaluation; what an earlier report left there is written anew.

        So it does for what is damaged in the sweep.
        """
        OutputFolder(out_dir).check_free()
        for run in read_sweep(self.path).run_dir:
            read_metrics(self.path / run)

    def run(self, out_dir: Path) -> Results:
        from moe_toy.findings.claims import show_claims
        from moe_toy.findings.seeds import show_seeds
        from moe_toy.report.sweep import judge_sweep  # plotly takes a second

        results = judge_sweep(self.path)
        show_claims(results.tables["claims"])
        if "exploratory" in results.tables:
            show_claims(results.tables["exploratory"], "exploratory, tested on seeds that were not looked at before")
        if "seeds" in results.tables:
            show_seeds(results.tables["seeds"])
        return results

    def write_report(self, results: Results, out_dir: Path) -> Path:
        from moe_toy.report.sweep import write_sweep_page  # plotly takes a second

        return write_sweep_page(results, self.path, out_dir)
