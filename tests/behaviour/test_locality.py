"""Schemes that limit what a token may choose, from a run to its evaluation, export and continuation."""

import pandas as pd
import pytest
import torch
import yaml

from moe_toy import evaluate as notebook_evaluate
from moe_toy.errors import UserError
from moe_toy.export.to_huggingface import export
from moe_toy.results import Results
from tests.evaluate_run import run_evaluation
from tests.small_run import EIGHT_EXPERTS, SMALL
from tests.train_run import run_training

POOL = ["locality=document_pool", "locality.smallest=2", "locality.largest=4", "locality.evaluated=3"]
LIMITED = {"residency": ["locality=residency"], "document_pool": POOL}
SETTINGS = {
    "residency": {"scheme": "residency", "swaps": 1},
    "document_pool": {"scheme": "document_pool", "smallest": 2, "largest": 4, "evaluated": 3},
}


@pytest.fixture(scope="module")
def places(texts, tmp_path_factory):
    return [f"data.source.path={texts}", f"data.root={tmp_path_factory.mktemp('cache')}"]


@pytest.fixture(scope="module", params=LIMITED)
def run_dir(request, places, tmp_path_factory):
    """A run of each scheme, of five steps and a validation."""
    return trained(tmp_path_factory.mktemp(request.param), *places, *LIMITED[request.param])


def trained(run_dir, *overrides: str):
    options = ["logger=csv", "trainer.max_steps=5", "optimizer.lr=0.1"]
    return run_training(run_dir, *SMALL, *EIGHT_EXPERTS, *options, *overrides)


def evaluated(out_dir, run_dir, *overrides: str) -> Results:
    quick = ["metrics.segment_lengths=[16]", "metrics.intervals=false", "metrics.min_token_count=2", "threads=1"]
    return run_evaluation(out_dir, *quick, f"target.path={run_dir}", *overrides)


def last_validation(run_dir) -> dict[str, float]:
    return pd.read_csv(run_dir / "metrics.csv").dropna(subset="val/loss").iloc[-1].to_dict()


def kept_by(run_dir) -> dict:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def scheme_of(run_dir) -> str:
    return run_dir.name.rstrip("0123456789")


def test_an_evaluation_chooses_as_the_run_did(run_dir, tmp_path):
    logged = last_validation(run_dir)["val/loss"]
    found = evaluated(tmp_path / "out", run_dir, "data.validation_samples=2")
    assert found.summary["loss"] == pytest.approx(logged, rel=1e-5)
    checkpoint = kept_by(run_dir)
    assert checkpoint["hyper_parameters"]["locality"] == SETTINGS[scheme_of(run_dir)]
    del checkpoint["hyper_parameters"]["locality"]  # the same weights, and free choices
    torch.save(checkpoint, tmp_path / "free.ckpt")
    options = {"tokenizer": run_dir / "tokenizer.json", "samples": 2, "length": 64, "segment_lengths": [16]}
    texts = yaml.safe_load((run_dir / "config.yaml").read_text())["data"]["source"]["path"]
    free, limited = (
        notebook_evaluate(path, texts, **options)["loss"].loss.mean() for path in (tmp_path / "free.ckpt", run_dir)
    )
    assert abs(free - limited) > 1e-4


def test_a_checkpoint_of_any_scheme_is_evaluated_with_a_cache_prior(run_dir, tmp_path):
    """Residency leaves it nothing to choose; a pool does, and the loss says so."""
    quick = [run_dir, "data.validation_samples=2", "metrics.cache_stride=1", "metrics.cold=miss"]
    plain, none, strong = (
        evaluated(tmp_path / f"out{strength}", *quick, *(["target.cache_prior=" + strength] if strength else []))
        for strength in ("", "0", "0.5")
    )
    assert plain.summary["loss"] == none.summary["loss"]
    assert strong.summary["source"] == f"{run_dir}, with cache_prior=0.5 at cache_ratio=2"
    assert strong.summary["source"] in (tmp_path / "out0.5" / "report.html").read_text()
    if scheme_of(run_dir) == "residency":
        assert strong.summary["loss"] == plain.summary["loss"]
    else:
        assert strong.summary["loss"] != plain.summary["loss"]
        assert lru(strong) > lru(plain)
    with pytest.raises(UserError, match="holds the results of another"):
        evaluated(tmp_path / "out", *quick, "target.cache_prior=1")


def lru(results: Results) -> float:
    """Hit rate of an LRU cache for each layer, of twice the active experts."""
    table = results.tables["cache"]
    return table[(table.policy == "lru") & (table.scope == "layer") & (table.cache_ratio == 2.0)].hit_rate.mean()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["target.cache_prior=-1"], r"target\.cache_prior: .* greater than or equal to 0, given -1"),
        (["target.cache_prior=inf"], r"target\.cache_prior: .* finite"),
        (["target.cache_prior=1", "target.cache_ratio=0.5"], r"target\.cache_ratio: .* 1, given 0\.5"),
        (["target.cache_prior=1", "target.cache_ratio=1.3"], r"target\.cache_ratio \(1\.3\) times the 2 .*; give 1\.5"),
        (["target.cache_prior=1", "target.cache_ratio=5"], r"a cache of 10 experts does not fit 8 .* between 1 and 4"),
    ],
    ids=str,
)
def test_a_prior_that_is_none_is_refused_in_one_line(run_dir, tmp_path, overrides, said):
    with pytest.raises(UserError, match=said) as refusal:
        evaluated(tmp_path / "out", run_dir, *overrides)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_it_cannot_be_exported(run_dir, tmp_path):
    with pytest.raises(UserError, match=rf"locality={scheme_of(run_dir)} is part of .*last\.ckpt, and no class"):
        export(run_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_with_its_own_limit_only(run_dir, places, tmp_path, caplog):
    common = [*places, f"ckpt_path={run_dir}", "trainer.max_steps=6"]
    with pytest.raises(UserError, match=r"locality limits choices by nothing, but .* goes on with \{'scheme': "):
        trained(tmp_path / "other", *common)
    trained(tmp_path / "same", *common, *LIMITED[scheme_of(run_dir)])
    assert kept_by(tmp_path / "same")["global_step"] == 6
    assert "choices were limited" not in caplog.text
    trained(tmp_path / "anew", *places, f"init_from={run_dir}")  # weights may start any model, which is told
    assert "and are by nothing now" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [3, ["residency"], {"scheme": "contrast"}, {"scheme": ["a"]}, {"scheme": "residency", "swaps": -1}, {"swaps": 1}],
    ids=str,
)
def test_a_checkpoint_that_names_another_scheme_is_refused(run_dir, tmp_path, settings):
    checkpoint = kept_by(run_dir)
    checkpoint["hyper_parameters"]["locality"] = settings
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="names a locality scheme that is none of ours") as refusal:
        export(tmp_path / "other.ckpt", tmp_path / "out")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["locality=residency", "locality.swaps=-1"], "locality.swaps"),
        (["locality=residency", "locality.swaps=8"], "locality.swaps (8) exchanges all of moe.top_k (8) experts"),
        (["locality=document_pool", "locality.largest=65"], "locality.largest (65) is no size of a pool"),
        (["locality=document_pool", "locality.smallest=60"], "locality.smallest (60) exceeds locality.largest (48)"),
        (["locality=contrast", "locality.coefficient=-1"], "locality.coefficient"),
        (["locality=adjacent", "locality.coefficient=x"], "locality.coefficient"),
    ],
    ids=str,
)
def test_bad_settings_are_told_in_one_line(refusal, overrides, said):
    assert said in refusal("train", *overrides)


def test_a_run_without_a_scheme_leaves_a_checkpoint_as_before(places, tmp_path):
    trained(tmp_path / "none", *places)
    assert kept_by(tmp_path / "none")["hyper_parameters"].keys() == {"model", "optimizer"}
