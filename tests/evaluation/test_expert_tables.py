"""Tables about single experts and positions, against counts by hand."""

import pandas as pd
import pytest
import torch

from moe_toy.evaluation.expert_tables import CoActivationTable, ExpertTable, PositionTable
from moe_toy.metrics import PositionSRP
from moe_toy.report.expert_lists import expert_lists
from moe_toy.routing import RoutingTrace
from tests.metrics.conftest import random_trace


@pytest.fixture
def split():
    """Experts 0 and 1 serve every token of `code`; `prose`, twice as long, shares 0 with 2; 3 is dead."""
    code, prose = [[0, 1]] * 4, [[0, 2]] * 4
    return RoutingTrace(
        expert_ids=torch.tensor([code, prose, prose])[None],
        token_ids=torch.zeros(3, 4, dtype=torch.int64),
        num_experts=4,
        layer_ids=(5,),
        domain_ids=torch.tensor([0, 1, 1]),
        domains=("code", "prose"),
    )


def made(maker, trace) -> pd.DataFrame:
    for row in range(len(trace.token_ids)):  # in parts, as they come
        maker.update(trace.select(slice(row, row + 1)))
    (table,) = maker.tables().values()
    return table


def test_each_expert_stands_with_the_domain_that_chooses_it_most_often(split):
    table = made(ExpertTable(split), split).set_index("expert")
    assert table.domain.tolist()[:3] == ["code", "code", "prose"]
    assert table.tokens.tolist() == [12, 4, 8, 0]
    assert table.share.tolist()[:3] == pytest.approx([0.5, 1.0, 1.0])  # prose is longer, but no domain counts more
    assert table.domain_share.tolist()[:3] == pytest.approx([1.0, 1.0, 1.0])
    assert table.lift.tolist()[:3] == pytest.approx([1.0, 2.0, 2.0])
    assert table.belongs.tolist() == [False, True, True, False]
    assert table.loc[3, ["domain", "share", "lift"]].isna().all()


def test_the_list_names_experts_by_domain_those_of_nobody_and_the_dead(split):
    sentence, html = expert_lists(made(ExpertTable(split), split), [5])
    assert sentence.startswith("Of 4 experts in layer 5, 2 belong to one domain, which chooses them at least twice as")
    rows = [row.split("</td>")[:3] for row in html.split("<tr>")[2:]]
    texts = [[cell.rpartition(">")[2] for cell in row] for row in rows]
    assert texts == [
        ["code", "1", "1 (100 %, 100 %, 2.0×)"],
        ["prose", "1", "2 (100 %, 100 %, 2.0×)"],
        ["belong to nobody", "1", "0"],
        ["dead", "1", "3"],
    ]


@pytest.mark.parametrize(("often", "belongs"), [(4, True), (3, False)])
def test_an_expert_belongs_where_it_is_chosen_twice_as_often_as_elsewhere(often, belongs):
    """Of 3 domains of 8 tokens: one chooses expert 1 `often`, the others 1 and 3 times, 2 on average."""
    rows = [[[1]] * times + [[0]] * (8 - times) for times in (often, 1, 3)]
    trace = RoutingTrace(
        expert_ids=torch.tensor(rows)[None],
        token_ids=torch.zeros(3, 8, dtype=torch.int64),
        num_experts=2,
        layer_ids=(0,),
        domain_ids=torch.arange(3),
        domains=("a", "b", "c"),
    )
    assert made(ExpertTable(trace), trace).belongs.tolist() == [False, belongs]


def test_one_domain_has_no_list(split):
    one = split.with_domains(torch.zeros(3, dtype=torch.int64), ("code",))
    assert expert_lists(made(ExpertTable(one), one), [5]) == ("", "")


def test_pairs_that_serve_the_same_tokens(split):
    table = made(CoActivationTable(split, min_token_count=1), split)
    pairs = {(row.expert, row.partner): (row.tokens, row.share) for row in table.itertuples()}
    assert pairs == {(1, 0): (4, 1.0), (2, 0): (8, 1.0), (0, 2): (8, 8 / 12), (0, 1): (4, 4 / 12)}
    frequent = made(CoActivationTable(split, min_token_count=9), split)
    assert set(frequent.expert) == {0}


def test_srp_by_position_is_that_of_the_metric():
    trace = random_trace(seq=40)
    trace = trace.with_domains(trace.domain_ids, ("a", "b", "c"))
    table = made(PositionTable(trace), trace)
    metric = PositionSRP(num_layers=2, num_experts=6, seq_len=40, num_domains=3)
    metric.update(trace)
    assert table.srp.tolist() == metric.compute().model.srp.tolist()
    assert table.position.tolist() == list(range(8, 33))
    short = random_trace(seq=10)
    maker = PositionTable(short)
    maker.update(short)
    assert maker.tables() == {}
