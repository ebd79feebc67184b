"""What a run directory's config.yaml may say to an evaluation of the run: our balancing schemes, nothing else."""

import pytest
import torch
import yaml

from moe_toy.balance.loss_free import LossFreeBias
from moe_toy.errors import UserError
from moe_toy.evaluation.checkpoint import CheckpointTarget
from moe_toy.evaluation.reading import Reading
from moe_toy.evaluation.settings import Options
from moe_toy.model.config import ModelConfig, MoEConfig
from moe_toy.model.transformer import MoETransformer
from tests.model.conftest import MODEL, MOE

SCHEME = {"_target_": "moe_toy.balance.loss_free.LossFreeBias", "rate": 0.5}


@pytest.fixture
def target(tmp_path, monkeypatch):
    """Of a run whose model has a bias on its selection."""
    config = ModelConfig(**MODEL, moe=MoEConfig(**MOE))
    sizes = {"num_layers": len(config.moe_layers), "num_experts": config.moe.num_experts}
    weights = MoETransformer(config, LossFreeBias(rate=0.5, **sizes)).state_dict()
    state = {f"model.{name}": tensor for name, tensor in weights.items()}
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "last.ckpt"
    torch.save({"hyper_parameters": {"model": MODEL | {"moe": MOE}}, "state_dict": state}, path)
    monkeypatch.setattr(Reading, "check", lambda *_: None)  # of the text
    return CheckpointTarget(path=tmp_path, device="cpu", batch_size=1, options=Options())


def test_a_folder_that_is_no_run_is_told_so(tmp_path):
    target = CheckpointTarget(path=tmp_path, device="cpu", batch_size=1, options=Options())
    with pytest.raises(UserError, match=r"target.path: .* no run directory; give a checkpoint of train\.py or the run"):
        target.check()


def touching(path):
    """A config that makes a file when Hydra instantiates it."""
    return {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(path)]}}


def test_the_scheme_of_the_run_is_built(target, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"balance": SCHEME}))
    target.check()
    assert target.load().model.balancer.rate == 0.5


def test_the_tokenizer_is_that_of_the_run_directory(target, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": touching(tmp_path / "made")}))
    with pytest.raises(UserError, match=r"no run directory with a tokenizer\.json"):
        target.tokenizer()
    (tmp_path / "tokenizer.json").touch()
    assert target.tokenizer() == tmp_path / "tokenizer.json"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"balance": touching("made")}, "no balancing scheme of ours, given 'pathlib.Path.touch'"),
        ({"balance": SCHEME | {"rate": touching("made")}}, "balance does not fit LossFreeBias"),
        ({"balance": {"_target_": "moe_toy.balance.loss_free.torch.load", "f": "x"}}, "no balancing scheme of ours"),
        ({"balance": {"_target_": "moe_toy.balance.loss_free.StepCounts"}}, "no balancing scheme of ours"),
        ({"balance": {"_target_": "moe_toy.balance.nowhere.Scheme"}}, "no balancing scheme of ours"),
        ({"balance": SCHEME | {"_target_": ["a"]}}, "no balancing scheme of ours"),
        ({"balance": SCHEME | {"rte": 1}}, "balance does not fit LossFreeBias"),
        ({"balance": None}, "no balancing scheme of ours, given None"),
        ("[1, 2]", "holds no keys with values"),
        ("a: [1", "is not YAML"),
        ("[" * 1000, "is not YAML"),
        (b"a: \xff", "is not YAML"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_anything_else_is_refused_and_not_called(target, tmp_path, monkeypatch, content, expected):
    monkeypatch.chdir(tmp_path)
    text = yaml.safe_dump(content) if isinstance(content, dict) else content
    (tmp_path / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=expected) as refusal:
        target.check()
    assert "\n" not in str(refusal.value)
    assert str(tmp_path / "config.yaml") in str(refusal.value)
    assert not (tmp_path / "made").exists()
