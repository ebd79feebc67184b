import torch

from moe_toy.pictures.heatmaps import expert_by_domain


def test_specialists_line_up_with_their_domains():
    # expert 0 lives in the second domain, expert 1 in the first, expert 2 in the third
    rates = torch.tensor([[0.0, 0.9, 0.1], [0.8, 0.1, 0.1], [0.1, 0.0, 0.9]]).double()[:, None]
    figure = expert_by_domain(rates, ["a", "b", "c"], layer_ids=[4])
    panel = figure.axes[0]
    picture = panel.images[0].get_array()
    assert panel.get_title() == "layer 4"
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a", "b", "c"]
    assert picture.argmax(1).tolist() == [0, 1, 2]
    assert picture.max() <= 3


def test_a_domain_without_text_does_not_mix_up_the_others():
    rates = torch.tensor([[torch.nan] * 3, [0.0, 0.9, 0.1], [0.8, 0.1, 0.1]]).double()[:, None]
    picture = expert_by_domain(rates, ["a", "b", "c"], layer_ids=[4]).axes[0].images[0].get_array()
    assert picture[1:].argmax(1).tolist() == [0, 2]  # of "b" expert 1 first, then 2, then of "c" expert 0


def test_an_odd_number_of_layers_leaves_no_empty_panel():
    figure = expert_by_domain(torch.rand(2, 3, 4, dtype=torch.float64), ["a", "b"], layer_ids=[0, 1, 2])
    assert len([axis for axis in figure.axes if axis.images]) == 3
