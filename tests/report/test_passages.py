import pandas as pd
import pytest

from moe_toy.report import passages as module
from moe_toy.report.passages import passages, strongest_tokens

TEXT = pd.DataFrame(
    [
        ("books", 0, position, token, layer, rank, 10 * layer + 2 * position + rank)
        for position, token in enumerate(["a", " b", "\n"])
        for layer in (0, 1)
        for rank in (0, 1)
    ],
    columns=["domain", "sequence", "position", "token", "layer", "rank", "expert"],
)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["in order", "backwards"])
def test_experts_stand_by_layer_and_token_best_first(order):
    data = passages(TEXT.iloc[order], layer_ids=[3, 5])
    assert data["layers"] == ["3", "5"]
    (passage,) = data["passages"]
    assert passage["title"] == "books"
    assert passage["tokens"] == ["a", " b", "\n"]
    assert passage["experts"] == [[[0, 1], [2, 3], [4, 5]], [[10, 11], [12, 13], [14, 15]]]


def test_text_without_domain_goes_by_its_number():
    assert passages(TEXT.assign(domain=None), [0, 1])["passages"][0]["title"] == "sequence 0"


def test_a_page_holds_a_bounded_amount_of_text(monkeypatch):
    monkeypatch.setattr(module, "MOST_IDS", 12)
    long = pd.concat([TEXT.assign(sequence=number) for number in range(3)])
    assert len(passages(long, [0, 1])["passages"]) == 1


def test_tokens_stand_by_kind_layer_and_expert_strongest_first():
    rows = [(0, 1, "input", 1, 7, " b\n", 0.5), (0, 1, "input", 0, 5, "a", 0.75), (0, 0, "target", 0, 5, "a", 1.0)]
    table = pd.DataFrame(rows, columns=["layer", "expert", "kind", "rank", "token_id", "token", "strength"])
    data = strongest_tokens(table, layer_ids=[2], num_experts=2)
    assert data["kinds"] == ["read by the expert", "that come next"]
    assert data["tokens"] == [[[[], [["a", 0.75], ["␣b↵", 0.5]]]], [[[["a", 1.0]], []]]]


def test_several_texts_of_a_domain_are_numbered():
    both = pd.concat([TEXT, TEXT.assign(sequence=7)])
    assert [passage["title"] for passage in passages(both, [0, 1])["passages"]] == [
        "books sequence 0",
        "books sequence 7",
    ]
