"""Results of a trace as an evaluation leaves them, without a model: for tests, and to look at.

python -m tests.report.make_results FOLDER    # a report of a synthetic model of 8 layers and 64 experts
"""

import sys
from pathlib import Path

import pandas as pd
import torch

from moe_toy.metrics import SRP, LoadBalance, VocabularySpecialization, analyze, null_scores
from moe_toy.results import Results
from moe_toy.routing import RoutingTrace

WORDS = [
    "the",
    " of",
    " routing",
    "\n",
    " expert",
    " cache",
    "</script><b>",
    " def",
    "(",
    ")",
    " ∑",
    " ½",
    "!--",
    "&lt;",
]


def results_of(
    trace: RoutingTrace,
    name: str = "example",
    *,
    intervals: bool = False,
    token_count: int = 20,
    text_length: int = 120,
) -> Results:
    tables = analyze(trace, cache_stride=1, intervals=intervals, min_token_count=token_count)
    tables |= {
        "balance": balance(trace),
        "nulls": nulls(trace),
        "tokens": tokens(trace, token_count),
        "text": text(trace, text_length),
    }
    domains, batch = trace.domains, trace.token_ids.shape[0]
    summary = {
        "name": name,
        "target": "trace",
        "source": f"{name}.safetensors",
        "layer_ids": list(trace.layer_ids),
        "num_experts": trace.num_experts,
        "top_k": trace.expert_ids.shape[-1],
        "vocab_size": trace.vocab_size,
        "domains": list(domains),
        "samples_per_domain": batch // max(len(domains), 1),
        "sequence_length": trace.token_ids.shape[1],
        "total_parameters": None,
        "active_parameters": None,
        "loss": None,
        "settings": {},
    }
    return Results(summary, tables)


def sizes(trace: RoutingTrace) -> dict[str, int]:
    return {"num_layers": len(trace.layer_ids), "num_experts": trace.num_experts}


def word(token_id: int) -> str:
    return WORDS[token_id] if token_id < len(WORDS) else f" t{token_id}"


def balance(trace: RoutingTrace) -> pd.DataFrame:
    metric = LoadBalance(**sizes(trace), num_domains=max(len(trace.domains), 1))
    metric.update(trace)
    scores, rows = metric.compute(), []
    for domain, pool in [(None, None), *((name, d) for d, name in enumerate(trace.domains))]:
        for scope, field in (("corpus", "cv"), ("sequence", "sequence_cv"), ("segment", "segment_cv")):
            values = getattr(scores.overall, field) if pool is None else getattr(scores.by_domain, field)[pool]
            dead = (scores.overall if pool is None else scores.by_domain).dead_experts
            dead = (dead if pool is None else dead[pool]).tolist()
            rows += [
                {"layer": i, "domain": domain, "scope": scope, "cv": v, "dead_experts": dead[i]}
                for i, v in enumerate(values.tolist())
            ]
    return pd.DataFrame(rows)


def nulls(trace: RoutingTrace) -> pd.DataFrame:
    rows = []
    for m in (4, 16, 64):

        def srp(trace: RoutingTrace, m: int = m) -> torch.Tensor:
            metric = SRP(**sizes(trace), segment_length=m, num_domains=max(len(trace.domains), 1))
            metric.update(trace)
            return metric.compute().model.srp

        if m <= trace.token_ids.shape[1]:
            scores = {name: value.item() for name, value in vars(null_scores(trace, srp)).items()}
            rows.append({"metric": "srp", "segment_length": m, "cache_ratio": None} | scores)
    return pd.DataFrame(rows)


def tokens(trace: RoutingTrace, token_count: int) -> pd.DataFrame:
    metric = VocabularySpecialization(**sizes(trace), vocab_size=trace.vocab_size, min_token_count=token_count)
    metric.update(trace)
    rows = []
    for kind, scores in metric.compute().items():
        for layer, expert, rank in (scores.strongest_ids >= 0).nonzero().tolist():
            id_ = scores.strongest_ids[layer, expert, rank].item()
            row = {"layer": layer, "expert": expert, "kind": kind, "rank": rank, "token_id": id_, "token": word(id_)}
            rows.append(row | {"strength": scores.strongest[layer, expert, rank].item()})
    return pd.DataFrame(rows)


def text(trace: RoutingTrace, length: int) -> pd.DataFrame:
    rows = []
    for sequence in torch.arange(len(trace.token_ids))[:: max(len(trace.token_ids) // 3, 1)].tolist():
        domain = trace.domains[trace.domain_ids[sequence]] if trace.domains else None
        for position, token in enumerate(trace.token_ids[sequence, :length].tolist()):
            for layer, rank_ids in enumerate(trace.expert_ids[:, sequence, position].tolist()):
                rows += [
                    (domain, sequence, position, word(token), layer, rank, expert)
                    for rank, expert in enumerate(rank_ids)
                ]
    return pd.DataFrame(rows, columns=["domain", "sequence", "position", "token", "layer", "rank", "expert"])


def synthetic_trace(
    *, layers: int = 8, experts: int = 64, top_k: int = 8, domains: int = 11, samples: int = 8, seq: int = 512
) -> RoutingTrace:
    """Domains and words have favourite experts, and a token leans towards those of the token before it."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    names = ("arxiv", "books", "c4", "code", "github", "lmarena", "math", "science", "stackexchange", "web", "wiki")
    vocab, batch = 400, domains * samples
    domain_ids = torch.arange(domains).repeat_interleave(samples)
    token_ids = (torch.rand(batch, seq, generator=generator) ** 3 * vocab).int()
    by_domain, by_word = normal(domains, layers, experts), normal(vocab, layers, experts)
    lean = torch.linspace(0.6, 1.8, layers)[:, None] * torch.linspace(0.6, 1.4, domains)[domain_ids][:, None, None]
    expert_ids = torch.empty(layers, batch, seq, top_k, dtype=torch.int64)
    before = torch.zeros(batch, layers, experts)
    for t in range(seq):
        wanted = 0.7 * by_domain[domain_ids] + 0.7 * by_word[token_ids[:, t].long()] + normal(batch, layers, experts)
        chosen = (wanted + lean * before).topk(top_k).indices
        before = 0.7 * before + torch.zeros_like(before).scatter_(-1, chosen, 0.5)
        expert_ids[:, :, t] = chosen.transpose(0, 1)
    return RoutingTrace(
        expert_ids=expert_ids,
        token_ids=token_ids,
        predicted_ids=token_ids.roll(-1, 1),
        domain_ids=domain_ids,
        num_experts=experts,
        layer_ids=tuple(range(layers)),
        vocab_size=vocab,
        domains=names[:domains],
    )


if __name__ == "__main__":
    from moe_toy.findings.recommend import recommend
    from moe_toy.report.html import write_report

    found = results_of(synthetic_trace(), "a synthetic model", intervals=True)
    found = recommend(found, bandwidth_gbps=25, expert_bytes=5e6, compute_ms=5)
    found.save(Path(sys.argv[1]))
    print(write_report(found, Path(sys.argv[1])))
