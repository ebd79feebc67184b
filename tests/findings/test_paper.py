import pytest

from moe_toy.findings import paper


@pytest.mark.parametrize(
    ("srp", "group"), [(0.7, "G1"), (0.5, "G1"), (0.48, "G2"), (0.42, "G2"), (0.37, "G3"), (0.3, "G4"), (0.0, "G4")]
)
def test_groups_by_srp(srp, group):
    assert paper.group(srp) == group


def test_published_models_fall_into_their_own_groups_but_for_grin():
    models = paper.numbers().query("study == 'published'").set_index("model")
    ours = models.srp_16.map(paper.group)
    assert list(models.index[ours != models.group]) == ["GRIN-MoE"]


def test_numbers_are_of_twenty_published_and_ten_toy_models():
    numbers = paper.numbers()
    assert numbers.groupby("study").size().to_dict() == {"published": 21, "toy": 10}  # NLLB has two parts
    assert numbers.srp_16.between(0, 1).all()
    rates = numbers.filter(regex="^(sch|lru)_").stack().dropna()
    assert rates.between(0, 1).all()


@pytest.mark.parametrize(("lengths", "nearest"), [([4, 16, 64], 16), ([4, 64], 4), ([8, 24], 8), ([256], 256)])
def test_the_nearest_segment_length(lengths, nearest):
    assert paper.nearest_length(lengths) == nearest
