"""What `evaluate.py` does with a config: check it, prepare for it, run it."""

import logging
import sys
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from moe_toy.checks.constructors import check_constructors
from moe_toy.evaluation.evaluation import Evaluation

EXIT_CLAIM_FAILS = 1
DEVICE = ("bandwidth_gbps", "expert_bytes", "compute_ms")
log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> None:
    from moe_toy.evaluation.runs import FinishedRuns
    from moe_toy.evaluation.sweep import FinishedSweep

    target = instantiate(cfg.target)
    if isinstance(target, FinishedSweep):
        return judge(target.path, Path(cfg.out_dir), strict=cfg.strict)
    report = compare(cfg) if isinstance(target, FinishedRuns) else measure(cfg)
    log.info("report: %s", report)


def measure(cfg: DictConfig) -> Path:
    from moe_toy.findings.recommend import recommend
    from moe_toy.report.html import write_report

    evaluation, out_dir = build(cfg), Path(cfg.out_dir)
    evaluation.prepare()
    device = {name: cfg[name] for name in DEVICE}
    results = recommend(evaluation.run(), **device)
    (out_dir / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    results.save(out_dir)
    report = write_report(results, out_dir)
    evaluation.tidy()
    return report


def compare(cfg: DictConfig) -> Path:
    from moe_toy.report.compare import write_comparison

    runs, out_dir = instantiate(cfg.target), Path(cfg.out_dir)
    runs.claim(out_dir)
    return write_comparison(runs.paths, out_dir)


def judge(sweep: Path, out_dir: Path, *, strict: bool) -> None:
    """Check the paper's claims over a sweep; with `strict`, a claim that fails is exit code 1."""
    from moe_toy.findings.claims import Verdict, show_claims
    from moe_toy.report.page import REPORT
    from moe_toy.report.sweep import write_sweep_report

    checked = write_sweep_report(sweep, out_dir)
    show_claims(checked)
    log.info("report: %s", out_dir / REPORT)
    if strict and (checked.claim_verdict == Verdict.FAILS).any():
        sys.exit(EXIT_CLAIM_FAILS)


def check(cfg: DictConfig) -> None:
    """Find what is wrong with a config before anything is created or fetched for it."""
    from moe_toy.errors import UserError
    from moe_toy.evaluation.settings import RunSettings
    from moe_toy.evaluation.target import ModelTarget

    values = OmegaConf.to_container(cfg, resolve=True)
    RunSettings(**values)
    if len({cfg[name] is None for name in DEVICE}) > 1:
        raise UserError(f"{', '.join(DEVICE)} go together; give all three or none")
    instantiate(cfg.metrics, _convert_="all")
    check_constructors({"target": values["target"]})
    target = instantiate(cfg.target)
    target.check()
    if isinstance(target, ModelTarget):
        check_constructors({"data": values["data"]})
    if not is_measured(cfg):
        build(cfg).check()


def prepare(cfg: DictConfig) -> None:
    """Assemble and tokenise the text, and see that it fits the model and that the output folder is free."""
    from moe_toy.evaluation.runs import FinishedRuns

    target = instantiate(cfg.target)
    if isinstance(target, FinishedRuns):
        target.check_folder(Path(cfg.out_dir))
    elif not is_measured(cfg):
        build(cfg).prepare()


def is_measured(cfg: DictConfig) -> bool:
    """Whether the target is results already, not a model or its routing."""
    from moe_toy.evaluation.runs import FinishedRuns
    from moe_toy.evaluation.sweep import FinishedSweep

    return isinstance(instantiate(cfg.target), FinishedRuns | FinishedSweep)


def build(cfg: DictConfig) -> "Evaluation":
    from moe_toy.evaluation.evaluation import Evaluation
    from moe_toy.evaluation.samples import Samples
    from moe_toy.evaluation.trace_files import TraceTarget

    target = instantiate(cfg.target)
    samples = None
    if not isinstance(target, TraceTarget):
        data = instantiate(cfg.data)
        samples = Samples(
            data.source,
            cfg.data.tokenizer or target.tokenizer(),
            data.root,
            per_domain=data.validation_samples,
            length=data.validation_length,
        )
    settings = instantiate(cfg.metrics, _convert_="all")
    return Evaluation(target, samples, settings, Path(cfg.out_dir), name=cfg.name, save_trace=cfg.save_trace)
