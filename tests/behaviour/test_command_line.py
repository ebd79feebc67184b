"""A user's mistake is one line that names the key, the value and the way out; nothing is created."""

import subprocess
import sys
from functools import partial

import pytest
from hydra import compose, initialize_config_dir
from torch.utils.data import DataLoader, Dataset

from moe_toy.checks.mistakes import explain
from moe_toy.command_line.entry import quote
from moe_toy.errors import UserError
from moe_toy.runs.run_name import run_name
from moe_toy.training import preflight
from tests.conftest import never
from tests.paths import CONF, ROOT


@pytest.fixture
def complain(refusal, monkeypatch):
    """`complain("moe.top_k=9")`: the line that train.py answers with before it prepares anything."""
    monkeypatch.setattr(preflight, "prepare", never)
    return partial(refusal, "train")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["moe.topk=4"], ["moe.topk: no such key", "given moe.topk=4", "did you mean moe.top_k?"]),
        (["moe=sparse"], ["moe/sparse", "shared_experts"]),
        (["hydra.run.dir=/x/a=1,b=2"], ["not an override", """as "key='VALUE'\""""]),
        (["moe.top_k=eight"], ["moe.top_k", "valid integer", "'eight'"]),
        (["moe.top_k=0"], ["moe.top_k", "greater than 0", "given 0"]),
        (["moe.top_k=65"], ["moe.top_k (65) cannot exceed moe.num_experts (64)"]),
        (["moe.num_experts=60"], ["ffn_budget (2048)", "60", "nearest"]),
        (["+moe.dropout=0.1"], ["moe.dropout: no such key"]),
        (["optimizer.lr=-1"], ["optimizer.lr", "greater than 0", "-1"]),
        (["optimizer.min_lr=1.0"], ["optimizer.min_lr (1.0) cannot exceed optimizer.lr"]),
        (
            ["trainer.max_steps=3", "trainer.val_check_interval=4"],
            ["val_check_interval (4) exceeds the 3 steps"],
        ),
        (["balance.coefficient=much"], ["balance.coefficient", "valid number", "'much'"]),
        (["balance.scope=layer"], ["balance.scope", "'global_batch' or 'ema'", "'layer'"]),
        (["data.sequence_length=4096"], ["data.sequence_length (4096) exceeds model.max_seq_len (1024)"]),
        (["ckpt_path=nowhere.ckpt"], ["ckpt_path: no such file, given nowhere.ckpt"]),
        (["debug=overfit", "ckpt_path=auto"], ["ckpt_path=auto", "trainer.overfit_batches", "start anew"]),
        (["data.weights={books: much}"], ["data.weights", "valid number"]),
        (["data.weights={books: 1}"], ["data.weights has no weight for web"]),
        (["data=run"], ["data=run has no data.vocab_size", "choose another data="]),
        (["data=files"], ["data.source.path"]),
        (["data=files", "data.source.path=nowhere"], ["nowhere", "not a folder"]),
        (["data.domains=[books,novels]"], ["novels", "books"]),
        (["data.sequence_length=1"], ["data.sequence_length", "greater than or equal to 2", "given 1"]),
        (["data.batch_size=0"], ["data.batch_size", "greater than 0", "given 0"]),
        (["data.seed=-1"], ["data.seed", "greater than or equal to 0", "given -1"]),
        (
            ["data=files", "data.source.path=.", "data.source.validation_fraction=2"],
            ["data.source.validation_fraction", "less than or equal to 1", "given 2"],
        ),
        (
            ["data=files", "data.source.path=.", "data.source.max_characters=0"],
            ["data.source.max_characters", "given 0"],
        ),
        (["callbacks.consistency.segment_lengths=[4,0]"], ["callbacks.consistency.segment_lengths", "greater than 0"]),
        (["callbacks.caches.cache_ratios.lru=[0]"], ["callbacks.caches.cache_ratios", "greater than 0"]),
        (["-m", "moe.top_k=4,65"], ["moe.top_k (65)"]),
        (["sweep=smoke", "moe.top_k=65"], ["moe.top_k (65)"]),
        (["trainer.max_steps=[1"], ["trainer.max_steps=[1"]),
    ],
    ids=lambda value: " ".join(value) if "=" in value[-1] else "",
)
def test_mistakes_are_told_in_one_line_with_exit_code_2(complain, arguments, expected):
    line = complain(*arguments)
    for part in expected:
        assert part in line


def test_a_damaged_checkpoint_is_named(complain, tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "last.ckpt"
    path.write_bytes(b"PK\x03\x04 not really")
    assert f"{path} is damaged" in complain(f"ckpt_path={path}")


def test_a_run_directory_may_be_given_as_the_shell_completes_it(complain, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("moe=few_experts,seed=1")
    (run_dir / "last.ckpt").write_bytes(b"not a checkpoint")
    assert f"{run_dir}/last.ckpt is damaged" in complain(f"ckpt_path={run_dir}/last.ckpt")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("hydra.run.dir=/x/jürgen/run", "hydra.run.dir='/x/jürgen/run'"),
        ("hydra.run.dir=/x/run~1", "hydra.run.dir='/x/run~1'"),
        ("ckpt_path=~/a.ckpt", "ckpt_path=/home/me/a.ckpt"),
        ("name='jürgen'", "name='jürgen'"),
        ("data.domains=[bücher]", "data.domains=[bücher]"),
        ("seed=1,2", "seed=1,2"),
        ("seed=1", "seed=1"),
        ("sweep_name=1.10", "sweep_name='1.10'"),  # else it went on with the sweep 1.1
        ("name=1e3", "name='1e3'"),
        ("name=v1.10", "name=v1.10"),
        ("~callbacks.progress", "~callbacks.progress"),
        ("--config-dir=/x/jürgen", "--config-dir=/x/jürgen"),
    ],
)
def test_quotes_are_added_where_hydra_needs_them(monkeypatch, given, read):
    monkeypatch.setenv("HOME", "/home/me")
    assert quote(given) == read


def test_any_path_that_is_there_is_read(tmp_path):
    path = tmp_path / "it's (1), ü=[2]"
    path.mkdir()
    argument = quote(f"data.source.path={path}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("train", ["data=files", argument]).data.source.path == str(path)


def test_only_the_argument_that_cannot_be_read_is_named(complain):
    line = complain("seed=7", "name=[a\nb", "threads=1")
    assert line.startswith("error: name=[a b: not an override")
    assert "threads" not in line


def test_ctrl_c_needs_no_traceback(command, monkeypatch):
    def interrupted(cfg):
        raise KeyboardInterrupt

    monkeypatch.setattr(preflight, "check", interrupted)
    assert command("train") == 130


def test_a_bug_keeps_its_traceback(command, monkeypatch, capsys):
    def broken(cfg):
        raise RuntimeError("our mistake")

    monkeypatch.setattr(preflight, "check", broken)
    assert command("train") == 1
    assert "in broken" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="our mistake"):
        command("train", "-m")


class Vanished(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("the tokens have vanished")


def test_a_mistake_found_by_a_data_worker_is_told_without_its_traceback():
    with pytest.raises(UserError) as error:
        list(DataLoader(Vanished(), num_workers=1))
    assert explain(error.value, []) == "the tokens have vanished"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", "default"),
        ("moe=few_experts,seed=1", "moe=few_experts,seed=1"),
        ("data.source.path=/a b/c", "data.source.path=-a-b-c"),
    ],
)
def test_run_names_are_safe_as_folders(overrides, name):
    assert run_name(overrides) == name


def test_long_run_names_differ_as_the_runs_do():
    names = {run_name(f"data.tokenizer={'x' * 200},seed={seed}") for seed in range(9)}
    assert len(names) == 9
    assert {len(name) for name in names} == {120}


def test_help_shows_choices_and_examples_without_a_heavy_import():
    command = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "--help"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "moe: baseline, dense_alternate" in finished.stdout
    assert 'eval "$(python train.py -sc install=bash)"' in finished.stdout
    imported = {line.split("|")[-1].strip() for line in finished.stderr.splitlines()}
    assert not imported & {"torch", "lightning", "transformers", "pandas"}


@pytest.mark.parametrize("how", ["offline=false", "WANDB_MODE"])
def test_curves_online_without_an_account_are_refused(complain, monkeypatch, tmp_path_factory, how):
    nowhere = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(nowhere))
    monkeypatch.setenv("NETRC", str(nowhere / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE")
    if how == "WANDB_MODE":
        monkeypatch.setenv("WANDB_MODE", "online")
    line = complain("data=files", *(["logger.wandb.offline=false"] if how != "WANDB_MODE" else []))
    assert "nobody is logged in to W&B" in line
    assert "logger.wandb.offline=true" in line


def test_curves_that_stay_here_need_no_account(complain, monkeypatch):
    monkeypatch.setattr(preflight, "is_logged_in", never)
    assert "data.source.path" in complain("data=files")


def test_compiling_without_grouped_products_is_refused(refusal):
    assert "grouped products in bf16 only (given 32-true" in refusal("train", "model.compile=true")
    steered = ["trainer.precision=bf16-mixed", "locality=document_pool"]
    assert "steers the router" in refusal("train", "model.compile=true", *steered)
    assert "model.compile" in refusal("train", "model.compile=maybe")


@pytest.mark.parametrize("where", ["trainer.precision=64-true", "model.ffn_budget=128"])
def test_grouped_products_that_there_are_none_of_are_refused(refusal, where):
    line = refusal("train", "moe.backend=grouped", where, "logger=csv")
    assert "moe.backend=grouped: no such product in torch.float" in line
    assert line.endswith("use moe.backend=auto\n")
