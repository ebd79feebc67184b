"""What is wrong with the choice of a text, told without the data module, for which Lightning has to be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from moe_toy.data.domains import TextSource, data_root, selected
from moe_toy.data.order import domain_weights
from moe_toy.data.tokenizer import tokenizer_path


def check_text_of(data: Mapping[str, Any]) -> None:
    """Raise a `UserError` for what is wrong with `data` of a config, whose source is past the check of constructors."""
    names = {"name": "tokenizer", "vocab_size": "vocab_size", "sample_bytes": "tokenizer_sample_bytes"}
    tokenizer = {option: data[key] for option, key in names.items()}
    source = selected(instantiate(data["source"]), data["domains"])
    check_text(source, data["weights"], tokenizer | {"root": data_root(data["root"])})


def check_text(source: TextSource, weights: Mapping[str | int, float] | None, tokenizer: Mapping[str, Any]) -> None:
    """Raise a `UserError` for what is wrong, before anything is made or fetched."""
    source.check()
    domain_weights(weights, source.domains, source.left_out)
    if tokenizer["name"] is not None:
        tokenizer_path(source, **tokenizer)  # a file that is named must be there
