"""Measure how consistently a model routes and what a cache of experts would gain: `python evaluate.py --help`."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from moe_toy.command_line import run_checked

if TYPE_CHECKING:
    from moe_toy.evaluation.evaluation import Evaluation

# Heavy imports stay inside functions, so that --help answers at once.
CONF = Path(__file__).parent / "conf"
EXIT_CLAIM_FAILS = 1
log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    import torch
    import yaml

    from moe_toy.evaluation.runs import FinishedRuns
    from moe_toy.evaluation.sweep import FinishedSweep
    from moe_toy.report.compare import write_comparison
    from moe_toy.report.html import write_report
    from moe_toy.report.recommend import recommend

    out_dir = Path(cfg.out_dir)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    target = instantiate(cfg.target)
    if isinstance(target, FinishedSweep):
        return judge(target.path, out_dir, strict=cfg.strict)
    if isinstance(target, FinishedRuns):
        report = write_comparison(target.paths, out_dir)
    else:
        evaluation = build(cfg)
        evaluation.prepare()
        results = recommend(
            evaluation.run(),
            bandwidth_gbps=cfg.bandwidth_gbps,
            expert_bytes=cfg.expert_bytes,
            compute_ms=cfg.compute_ms,
        )
        (out_dir / "config.yaml").write_text(yaml.safe_dump(OmegaConf.to_container(cfg, resolve=True), sort_keys=False))
        results.save(out_dir)
        report = write_report(results, out_dir)
        evaluation.tidy()
    log.info("report: %s", report)


def judge(sweep: Path, out_dir: Path, *, strict: bool) -> None:
    """Check the paper's claims over a sweep; with `strict`, a claim that fails is exit code 1."""
    from moe_toy.report.claims import Verdict, show_claims
    from moe_toy.report.page import REPORT
    from moe_toy.report.sweep import write_sweep_report

    checked = write_sweep_report(sweep, CONF / "claims.yaml", out_dir)
    show_claims(checked)
    log.info("report: %s", out_dir / REPORT)
    if strict and (checked.claim_verdict == Verdict.FAILS).any():
        sys.exit(EXIT_CLAIM_FAILS)


def check(cfg: DictConfig) -> None:
    """Find what is wrong with a config before anything is created or fetched for it."""
    from moe_toy.errors import UserError

    device = [cfg.bandwidth_gbps, cfg.expert_bytes, cfg.compute_ms]
    if any(device) and not all(device):
        raise UserError("bandwidth_gbps, expert_bytes and compute_ms go together; give all three or none")
    instantiate(cfg.metrics, _convert_="all")
    instantiate(cfg.target).check()
    if not is_measured(cfg):
        build(cfg).check()


def prepare(cfg: DictConfig) -> None:
    """Assemble and tokenise the text, and see that it fits the model and that the output folder is free."""
    if not is_measured(cfg):
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


if __name__ == "__main__":
    run_checked(main, (check, prepare), CONF, "evaluate")
