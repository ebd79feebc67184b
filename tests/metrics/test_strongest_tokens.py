import torch

from moe_toy.metrics.strongest_tokens import strongest_tokens
from moe_toy.metrics.vocabulary import vocabulary_scores


def test_each_expert_lists_what_it_owns_strongest_first():
    # one layer, two experts, four ids: expert 0 owns ids 0 (3 of 4) and 2 (all), expert 1 owns id 1; id 3 never occurs
    counts = torch.tensor([[[3, 1, 2, 0], [1, 4, 0, 0]]])
    table = strongest_tokens({"input": vocabulary_scores(counts, min_token_count=1)}, "id {}".format, layer_ids=[7])
    assert table.to_numpy().tolist() == [
        [7, 0, "input", 0, 2, "id 2", 1.0],
        [7, 0, "input", 1, 0, "id 0", 0.75],
        [7, 1, "input", 0, 1, "id 1", 0.8],
    ]
    assert table.columns.tolist() == ["layer", "expert", "kind", "rank", "token_id", "token", "strength"]
