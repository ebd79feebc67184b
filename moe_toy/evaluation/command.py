"""What `evaluate.py` does with a config: check it, prepare for it, run it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from moe_toy.checks.constructors import check_constructors
from moe_toy.errors import UserError
from moe_toy.evaluation.output_folder import OutputFolder
from moe_toy.evaluation.settings import DEVICE, Options, RunSettings
from moe_toy.evaluation.target import Target
from moe_toy.model.allocator import keep_freed_memory
from moe_toy.runs.run_directory import CONFIG

log = logging.getLogger(__name__)
EXIT_CLAIM_FAILS = 1
_built: dict[str, Target] = {}
"""The target of the last config that was checked, until it has run."""


def check(cfg: DictConfig) -> None:
    """Raise `UserError` for what is wrong with a config, before anything is created or fetched for it."""
    _built.clear()
    target_of(cfg).check()


def prepare(cfg: DictConfig) -> None:
    """Get ready what the target needs, and see that the output folder is free."""
    target_of(cfg).prepare(Path(cfg.out_dir))


def run(cfg: DictConfig) -> None:
    """Measure, and leave `config.yaml`, `summary.json`, `tables/` and `report.html` in the output folder.

    With `strict`, leave with exit code 1 if a claim of the paper fails in the sweep that is judged.
    """
    keep_freed_memory()
    if cfg.threads is not None:
        import torch

        torch.set_num_threads(cfg.threads)
    folder = OutputFolder(Path(cfg.out_dir))
    with folder.lock():
        target = target_of(cfg)
        _built.clear()
        results = target.run(folder.path)
        (folder.path / CONFIG).write_text(OmegaConf.to_yaml(cfg, resolve=True))
        results.save(folder.path)
        log.info("report: %s", target.write_report(results, folder.path))
    if cfg.strict and "fails" in results.summary.get("claims", {}).values():
        sys.exit(EXIT_CLAIM_FAILS)


def target_of(cfg: DictConfig) -> Target:
    """The target of a config; one that was checked just before is not built again."""
    values = {key: value for key, value in OmegaConf.to_container(cfg, resolve=True).items() if key != "out_dir"}
    key = json.dumps(values, sort_keys=True)
    if key not in _built:
        _built.clear()
        _built[key] = build(cfg)
    return _built[key]


def build(cfg: DictConfig) -> Target:
    """The target that a config names, with what is asked of it. Raises `UserError` for values that are no values."""
    values = OmegaConf.to_container(cfg, resolve=True)
    settings = RunSettings(**values)
    metrics = instantiate(cfg.metrics, _convert_="all")
    offload = instantiate(cfg.offload, _convert_="all") if cfg.offload else None
    check_constructors({"target": values["target"]})

    def data() -> Any:
        check_constructors({"data": values["data"]})
        return instantiate(cfg.data)

    options = Options(
        metrics=metrics,
        data=data,
        tokenizer=cfg.data.tokenizer,
        name=cfg.name,
        save_trace=cfg.save_trace,
        allow_different_text=cfg.allow_different_text,
        offload=offload,
        device={name: getattr(settings, name) for name in DEVICE},
    )
    target = instantiate(cfg.target, _partial_=True)(options=options)
    if offload is not None and not hasattr(target, "offloading"):
        raise UserError(
            "offload decodes with a model (target=checkpoint, huggingface) or replays recorded routing (target=trace); "
            "give offload=none"
        )
    return target
