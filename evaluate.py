"""Measure how consistently a model routes and what a cache of experts would gain: `python evaluate.py --help`."""

import logging
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
DEVICE = ("bandwidth_gbps", "expert_bytes", "compute_ms")
log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(cfg: DictConfig) -> None:
    import torch

    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    report = compare(cfg) if is_comparison(cfg) else measure(cfg)
    log.info("report: %s", report)


def measure(cfg: DictConfig) -> Path:
    from moe_toy.report.html import write_report
    from moe_toy.report.recommend import recommend

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


def check(cfg: DictConfig) -> None:
    """Find what is wrong with a config before anything is created or fetched for it."""
    from moe_toy.errors import UserError

    if len({cfg[name] is None for name in DEVICE}) > 1:
        raise UserError(f"{', '.join(DEVICE)} go together; give all three or none")
    instantiate(cfg.metrics, _convert_="all")
    instantiate(cfg.target).check()
    if not is_comparison(cfg):
        build(cfg).check()


def prepare(cfg: DictConfig) -> None:
    """Assemble and tokenise the text, and see that it fits the model and that the output folder is free."""
    if is_comparison(cfg):
        instantiate(cfg.target).check_folder(Path(cfg.out_dir))
    else:
        build(cfg).prepare()


def is_comparison(cfg: DictConfig) -> bool:
    from moe_toy.evaluation.runs import FinishedRuns

    return isinstance(instantiate(cfg.target), FinishedRuns)


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
