"""The paper's thirteen models: that each experiment is the published one, by its numbers."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from moe_toy.findings import paper
from moe_toy.training.build import build_model
from tests.paths import CONF

# key: total, active (both embeddings included), active without embeddings; balance and z-loss coefficients.
# Liang et al. 2025, arXiv 2505.16056, toy models.
PAPER = {
    "baseline": (1_427_070_208, 326_065_408, 197_287_168, 0.01, 0.001),
    "32expert": (1_426_742_528, 325_737_728, 196_959_488, 0.01, 0.001),
    "top16": (1_427_070_208, 483_351_808, 354_573_568, 0.01, 0.001),
    "top2": (1_427_070_208, 208_100_608, 79_322_368, 0.01, 0.001),
    "share1": (1_427_059_968, 326_055_168, 197_276_928, 0.01, 0.001),
    "share2": (1_427_049_728, 326_044_928, 197_266_688, 0.01, 0.001),
    "skip1": (1_426_988_288, 463_609_088, 334_830_848, 0.01, 0.001),
    "skip1slim": (1_289_362_688, 325_983_488, 197_205_248, 0.01, 0.001),
    "sparse2": (1_426_742_528, 876_240_128, 747_461_888, 0.01, 0.001),
    "sparse2slim": (876_240_128, 325_737_728, 196_959_488, 0.01, 0.001),
    "nolb": (1_427_070_208, 326_065_408, 197_287_168, 0.0, 0.001),
    "overlb": (1_427_070_208, 326_065_408, 197_287_168, 0.1, 0.001),
    "nozl": (1_427_070_208, 326_065_408, 197_287_168, 0.01, 0.0),
}


def composed(key: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", ["experiment=paper", f"arm={key}"])


def test_there_is_an_arm_for_each_model_of_the_paper_and_one_of_ours():
    assert {path.stem for path in (CONF / "arm").glob("*.yaml")} == set(PAPER) | {"global_batch"}
    assert composed("global_batch").balance.scope == "global_batch"


def test_the_papers_rung_of_the_ladder_is_as_large_as_its_baseline():
    assert PAPER["baseline"][0] == paper.PARAMETERS


@pytest.mark.parametrize("key", PAPER)
def test_a_paper_experiment_has_the_published_parameters_to_the_unit(key):
    cfg = composed(key)
    with torch.device("meta"):
        model = build_model(cfg)
    total, active, active_without_embeddings, balance, z_loss = PAPER[key]
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    assert model.config.total_parameters == total
    assert model.config.active_parameters == active
    assert model.config.active_parameters - model.config.embedding_parameters == active_without_embeddings
    assert (model.balancer.coefficient, model.config.moe.z_loss_coefficient) == (balance, z_loss)


@pytest.mark.parametrize("key", PAPER)
def test_a_paper_experiment_follows_the_recipe(key):
    cfg = composed(key)
    assert cfg.seed == cfg.data.seed == 19260817
    assert (cfg.global_batch_size, cfg.data.batch_size, cfg.data.sequence_length) == (1024, 16, 4096)
    assert cfg.trainer.max_steps == 10_000
    assert (cfg.optimizer.lr, cfg.optimizer.min_lr, cfg.optimizer.warmup_steps) == (4e-4, 5e-5, 500)
    assert cfg.optimizer.weight_decay == 0.1
    assert cfg.trainer.gradient_clip_val == 1.0
    assert cfg.balance.scope == "micro_batch"
    assert sum(cfg.data.weights.values()) == 1277  # files of the mix
    assert set(cfg.data.weights) == set(cfg.data.source.datasets)
