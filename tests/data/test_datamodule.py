"""DomainDataModule: which samples a run sees, on any number of ranks and after a resume."""

import json
import subprocess
import sys
from types import SimpleNamespace

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from moe_toy.data.batches import even_batches
from moe_toy.data.datamodule import DomainDataModule
from moe_toy.data.domains import FileDomains
from moe_toy.errors import UserError
from moe_toy.routing import TokenBatch

WORDS = {"animals": "cat dog cow pig hen", "colours": "red blue green pink grey", "digits": "1 2 3 4 5 6 7"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    for domain, words in WORDS.items():
        for split, number in (("train", 60), ("validation", 10)):
            lines = [json.dumps({"text": f"{words} {i} " * 4}) for i in range(number)]
            (path / "text" / split).mkdir(parents=True, exist_ok=True)
            (path / "text" / split / f"{domain}.jsonl").write_text("\n".join(lines))
    return path


def make(folder, **changes):
    source = FileDomains(path=folder / "text", validation_fraction=0.1, max_characters=1000)
    options = {
        "source": source,
        "domains": None,
        "tokenizer": None,
        "tokenizer_sample_bytes": 10_000,
        "vocab_size": 280,
        "sequence_length": 16,
        "batch_size": 2,
        "validation_length": 32,
        "validation_samples": 3,
        "validation_batch_size": 4,
        "weights": None,
        "seed": 7,
        "root": folder,
        "num_workers": 0,
    }
    return DomainDataModule(**{**options, **changes})


def ready(folder, rank=0, num_ranks=1, accumulate=1, max_steps=-1, **changes):
    """Set up as if rank `rank` of `num_ranks` had asked."""
    data = make(folder, **changes)
    data.prepare_data()
    data.trainer = SimpleNamespace(
        world_size=num_ranks,
        global_rank=rank,
        accumulate_grad_batches=accumulate,
        max_steps=max_steps,
        max_epochs=-1,
        overfit_batches=0.0,
        global_step=0,
    )
    data.setup()
    return data


class Recorder(lightning.LightningModule):
    """Remembers every training sequence, learns nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen += batch.token_ids.tolist()
        return self.weight * batch.token_ids.sum()

    def validation_step(self, batch, batch_idx):
        assert batch.domain_ids is not None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def fit(folder, path, max_steps, ckpt_path=None, **changes):
    data_options = {name: changes.pop(name) for name in ("batch_size", "num_workers") if name in changes}
    model, data = Recorder(), make(folder, **data_options)
    saving = lightning.pytorch.callbacks.ModelCheckpoint(path, every_n_train_steps=1, save_last=True, save_top_k=-1)
    trainer = lightning.Trainer(
        max_steps=max_steps,
        callbacks=[saving],
        default_root_dir=path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **{"limit_val_batches": 0, **changes},
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return model, trainer


def test_batches_are_token_batches_of_one_domain_per_sequence(folder):
    data = ready(folder)
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, TokenBatch)
    assert batch.token_ids.shape == (2, 16)
    assert batch.token_ids.dtype == batch.domain_ids.dtype == torch.int64
    assert data.domains == ("animals", "colours", "digits")
    for tokens, domain in zip(*batch, strict=True):
        assert WORDS[data.domains[domain]].split()[1] in data.tokenizer.decode(tokens.tolist())


@pytest.mark.parametrize(("num_ranks", "accumulate"), [(2, 1), (2, 3), (4, 2)])
def test_ranks_share_a_step_as_one_rank_with_a_larger_batch_would_see_it(folder, num_ranks, accumulate):
    per_step = 2 * num_ranks * accumulate
    one = list(ready(folder, batch_size=per_step, max_steps=3).train_dataloader())
    ranks = [
        list(ready(folder, rank, num_ranks, accumulate, max_steps=3).train_dataloader()) for rank in range(num_ranks)
    ]
    for step in range(3):
        micro_batches = [
            sequence
            for batches in ranks
            for batch in batches[step * accumulate : (step + 1) * accumulate]
            for sequence in batch.token_ids.tolist()
        ]
        assert sorted(micro_batches) == sorted(one[step].token_ids.tolist())


def test_without_max_steps_an_epoch_is_one_pass_in_whole_steps(folder):
    data = ready(folder, accumulate=4)
    assert len(data.train_dataloader()) == len(data.training_order) // 8 * 4


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("stop", ["step=2", "last"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_sees_what_an_uninterrupted_one_would(folder, tmp_path, accumulate, stop, num_workers):
    options = {"accumulate_grad_batches": accumulate, "num_workers": num_workers}
    whole, _ = fit(folder, tmp_path / "whole", max_steps=6, **options)
    first, _ = fit(folder, tmp_path / "part", max_steps=4, **options)
    [checkpoint] = (tmp_path / "part").glob(f"*{stop}.ckpt")
    done = 2 if stop == "step=2" else 4
    second, trainer = fit(folder, tmp_path / "part", max_steps=6, ckpt_path=checkpoint, **options)
    assert first.seen[: done * 2 * accumulate] + second.seen == whole.seen
    assert len(whole.seen) == 6 * 2 * accumulate
    assert trainer.global_step == 6


def test_a_run_resumed_with_another_batch_size_goes_on_at_the_same_sample(folder, tmp_path):
    whole, _ = fit(folder, tmp_path / "whole", max_steps=6)
    fit(folder, tmp_path / "part", max_steps=2)
    checkpoint = tmp_path / "part" / "last.ckpt"
    second, trainer = fit(folder, tmp_path / "part", max_steps=4, ckpt_path=checkpoint, batch_size=4)
    assert second.seen == whole.seen[4:12]
    assert trainer.global_step == 4
    third, _ = fit(folder, tmp_path / "part", max_steps=5, ckpt_path=tmp_path / "part" / "last.ckpt", batch_size=2)
    assert second.seen[-1] not in third.seen


def test_epochs_continue_the_order_instead_of_repeating_it(folder, tmp_path):
    model, _ = fit(folder, tmp_path, max_steps=-1, max_epochs=2, limit_train_batches=5)
    data = ready(folder, max_steps=10)
    assert model.seen == [sequence for batch in data.train_dataloader() for sequence in batch.token_ids.tolist()]


def test_validation_gives_the_first_blocks_of_each_domain_in_order(folder):
    data = ready(folder)
    batches = list(data.val_dataloader())
    assert torch.cat([batch.domain_ids for batch in batches]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    blocks = torch.cat([batch.token_ids for batch in batches])
    assert blocks.shape == (9, 32)
    text = data.tokenizer.decode(blocks[:3].flatten().tolist())
    first = next(iter(data.source.documents("animals", "validation")))
    assert text.startswith(first[:60])


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_ranks_share_validation_without_duplicates_in_equally_many_batches(folder, num_ranks):
    ranks = [list(ready(folder, rank, num_ranks).val_dataloader()) for rank in range(num_ranks)]
    assert len({len(batches) for batches in ranks}) == 1
    domains = [domain for batches in ranks for batch in batches for domain in batch.domain_ids.tolist()]
    assert sorted(domains) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(("num_samples", "batch_size", "num_ranks"), [(88, 8, 1), (9, 4, 2), (3, 1, 2), (7, 100, 3)])
def test_even_batches_cover_all_samples_once(num_samples, batch_size, num_ranks):
    batches = even_batches(num_samples, batch_size, num_ranks)
    assert len(batches) % num_ranks == 0
    assert [sample for batch in batches for sample in batch] == list(range(num_samples))
    assert 1 <= min(map(len, batches)) <= max(map(len, batches)) <= batch_size + 1


def test_a_domain_with_fewer_validation_blocks_uses_them_all_and_says_so(folder, caplog):
    data = ready(folder, validation_samples=10_000)
    assert "validation blocks, not 10000" in caplog.text
    assert len(data._validation) < 3 * 10_000


def test_token_bytes_cover_the_model_vocabulary(folder):
    data = ready(folder)
    larger = ready(folder, vocab_size=300, tokenizer=str(next((folder / "tokenizers").glob("*-280-*.json"))))
    assert data.token_bytes.shape == (280,)
    assert larger.token_bytes.tolist() == [*data.token_bytes.tolist(), *[0] * 20]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": "/dev/null"}, "cannot keep tokens under data.root=/dev/null"),
        ({"domains": ["animal"]}, "data.domains names animal; available are animals, colours, digits"),
        ({"weights": {"animal": 1}}, "data.weights names animal; the domains are animals, colours, digits"),
        ({"weights": {"animals": 0, "colours": 0, "digits": 0}}, "not all 0"),
        ({"weights": {"animals": 2, "colours": 1, "digits": -1}}, "not negative"),
        ({"weights": {"animals": float("nan"), "colours": 1, "digits": 1}}, "finite"),
        ({"weights": {"animals": 1}}, "data.weights has no weight for colours, digits; give it one, 0 to leave it out"),
        ({"domains": [202401]}, r"data.domains names 202401 \(YAML read a number: quote such a name twice"),
        ({"sequence_length": 100_000}, "animals has 2972 training tokens in 60 documents, less than one sequence"),
        ({"validation_length": 100_000}, r"animals has \d+ validation tokens in \d+ documents, less than one block"),
        ({"vocab_size": 200}, "data.vocab_size=200 is too small"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_configuration_is_one_line(folder, changes, message):
    with pytest.raises(UserError, match=message) as error:
        ready(folder, **changes)
    assert "\n" not in str(error.value)


def test_weights_of_domains_that_are_left_out_need_not_be_taken_back(folder):
    """A config such as data=olmoe_mix names all of them, and the command line can only add to it."""
    data = ready(folder, domains=["digits", "animals"], weights={"animals": 1, "colours": 5, "digits": 3})
    assert data.training_order.places == (768, 256)


def test_how_often_each_token_is_seen_is_said_and_logged(folder, caplog):
    told = []
    data = ready(folder, max_steps=50, weights={"animals": 1, "colours": 0, "digits": 3})
    data.trainer.loggers = [SimpleNamespace(log_hyperparams=told.append), CSVLogger(folder)]
    with caplog.at_level("INFO"):
        data.setup("validate")
        assert not caplog.messages
        data.setup("fit")
    drawn = [data.training_order[i][0] for i in range(1024)]
    [seen] = [config["times_seen"] for config in told]
    for index, domain in enumerate(data.domains):
        assert seen[domain] == pytest.approx(100 * drawn.count(index) / 1024 / data.training_order.sizes[index])
    assert any(message.startswith("Each token is seen: animals ") for message in caplog.messages)


@pytest.mark.parametrize("limit", [{"max_epochs": 1}, {"overfit_batches": 2}], ids=str)
def test_it_is_not_said_where_another_limit_may_decide(folder, caplog, limit):
    data = ready(folder, max_steps=50)
    vars(data.trainer).update(limit, loggers=[])
    with caplog.at_level("INFO"):
        data.setup("fit")
    assert not any(message.startswith("Each token is seen") for message in caplog.messages)


def test_a_domain_too_small_is_refused_before_its_tokenizer_is_kept(folder):
    with pytest.raises(UserError, match="less than one block"):
        ready(folder, validation_length=100_000, vocab_size=290)
    assert not list((folder / "tokenizers").glob("*-290-*.json"))
    ready(folder, vocab_size=290)
    assert len(list((folder / "tokenizers").glob("*-290-*.json"))) == 1


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused(folder):
    ready(folder)
    path = str(next((folder / "tokenizers").glob("*-280-*.json")))
    with pytest.raises(UserError, match=r"data.vocab_size=270 is smaller than the tokenizer's 280"):
        ready(folder, vocab_size=270, tokenizer=path)


def test_weights_leave_out_a_domain_in_training_only(folder):
    data = ready(folder, weights={"animals": 1.0, "colours": 0, "digits": 3.0}, max_steps=50)
    seen = torch.cat([batch.domain_ids for batch in data.train_dataloader()])
    assert set(seen.tolist()) == {0, 2}
    assert 0.6 < (seen == 2).float().mean() < 0.9
    assert {domain for batch in data.val_dataloader() for domain in batch.domain_ids.tolist()} == {0, 1, 2}


def test_a_warm_start_imports_no_text_library(folder):
    ready(folder)
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
from test_datamodule import make
data = make(Path({str(folder)!r}))
data.prepare_data()
data.setup()
print([name for name in ("datasets", "pyarrow.parquet") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["corpus", "files", "redpajama_sample", "olmoe_mix"])
def test_every_data_config_builds(name, pytestconfig, tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_TOY_DATA", str(tmp_path))
    with initialize_config_dir(str(pytestconfig.rootpath / "conf"), version_base="1.3"):
        config = OmegaConf.create({"data": compose(f"data/{name}").data, "seed": 1})
    data = instantiate(config.data, _convert_="all")
    assert data.root == tmp_path
    assert data.validation_length == 512


def test_a_warm_start_reads_no_text(folder, monkeypatch):
    make(folder).prepare_data()
    monkeypatch.setattr(FileDomains, "documents", lambda *_: pytest.fail("text was read again"))
    make(folder).prepare_data()


def test_a_warm_start_with_too_long_sequences_is_told_how_much_text_there_is(folder):
    make(folder).prepare_data()
    with pytest.raises(UserError, match=r"training tokens in 60 documents, less than one sequence"):
        make(folder, sequence_length=10**6).prepare_data()
