"""What the two sides of an encoder-decoder model read."""

import torch

from moe_toy.evaluation.encoder_decoder import copied, masked


def test_a_copying_decoder_lags_one_token_behind():
    encoder, decoder = copied(torch.tensor([[5, 6, 7]]), start_id=2)
    assert encoder.tolist() == [[5, 6, 7]]
    assert decoder.tolist() == [[2, 5, 6]]


def test_a_mask_filling_decoder_writes_what_is_hidden_from_the_encoder():
    tokens = torch.arange(100, 132)[None]
    encoder, decoder = masked(tokens, start_id=0, sentinel_ids=[90, 91, 92])
    assert (encoder != tokens).nonzero().tolist() == [[0, 15], [0, 31]]
    assert encoder[0, [15, 31]].tolist() == [90, 91]
    assert decoder.tolist() == [[0, 90, 115, 91, 131]]


def test_blocks_of_512_give_the_papers_decoder_length():
    inputs = masked(torch.zeros(1, 512, dtype=torch.int64), start_id=0, sentinel_ids=list(range(100)))
    assert inputs.decoder.shape == (1, 65)
