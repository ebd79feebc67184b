import pandas as pd
import pytest

from moe_toy.callbacks.base import log_table
from moe_toy.callbacks.specialization import DomainSpecializationCallback, VocabularySpecializationCallback
from moe_toy.files.csv_tables import read_csv
from moe_toy.metrics import SRP, DomainSpecialization, VocabularySpecialization, pearson


@pytest.fixture
def expert_srp(subject, trace):
    metric = SRP(**subject.shape, segment_length=16)
    metric.update(trace)
    return metric.compute().expert.srp


def test_domain_specialization_is_correlated_with_srp(curves, subject, trace, expert_srp):
    logged = curves(DomainSpecializationCallback(segment_length=16), trace)
    metric = DomainSpecialization(**subject.shape)
    metric.update(trace)
    assert logged["specialization/domain"] == metric.compute().mean
    assert logged["correlation/srp@16/domain"] == pearson(metric.compute().value, expert_srp)


def test_vocabulary_specialization_is_correlated_with_srp(curves, subject, trace, expert_srp):
    logged = curves(VocabularySpecializationCallback(segment_length=16), trace)
    metric = VocabularySpecialization(**subject.sizes, vocab_size=20)
    metric.update(trace)
    for kind in ("input", "predicted", "target"):
        score = metric.compute()[kind]
        assert logged[f"specialization/{kind}"] == score.mean
        assert logged[f"correlation/srp@16/{kind}"] == pearson(score.value, expert_srp)


def test_pictures_hold_eight_layers_each(curves, subject, trace, monkeypatch):
    monkeypatch.setattr("moe_toy.callbacks.specialization.LAYERS_PER_FIGURE", 2)
    callback = DomainSpecializationCallback(segment_length=16)
    curves(callback, trace)
    figures = callback.figures({"domain": callback.metrics["domain"].compute()})
    assert list(figures) == [
        "specialization/experts_by_domain/layers_01-03",
        "specialization/experts_by_domain/layers_05-05",
    ]
    titles = [axis.get_title() for figure in figures.values() for axis in figure.axes if axis.images]
    assert titles == ["layer 1", "layer 3", "layer 5"]


def test_the_strongest_tokens_are_kept_when_training_ends(curves, trace, trainer, recorder, tmp_path):
    callback = VocabularySpecializationCallback(segment_length=16)
    curves(callback, trace)
    callback.on_fit_end(trainer, recorder)
    table = pd.read_csv(tmp_path / "strongest_tokens.csv")
    assert set(table.layer) == {1, 3, 5}
    assert set(table.kind) == {"input", "predicted", "target"}
    assert (table.token == "token" + table.token_id.astype(str)).all()
    first = table.groupby(["layer", "expert", "kind"]).strength.is_monotonic_decreasing
    assert first.all()


def test_tokens_called_like_missing_values_survive(trainer, tmp_path):
    log_table(trainer, "routing/strongest_tokens", pd.DataFrame({"token": ["null", "", "x"], "rank": [0, 1, 2]}))
    assert pd.read_csv(tmp_path / "strongest_tokens.csv").token.notna().all()
    assert read_csv(tmp_path / "strongest_tokens.csv").token.tolist() == ["null", "", "x"]


def test_a_run_that_never_validated_has_no_table(trainer, recorder, tmp_path):
    VocabularySpecializationCallback(segment_length=16).on_fit_end(trainer, recorder)
    assert not list(tmp_path.iterdir())
