"""Read a prompt, then decode token by token, and say what each token took."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.engine import Account, Cost

COLUMNS = ("seconds", *Cost._fields)


@dataclass(frozen=True)
class Decoded:
    """One sequence. Step 0 is the prompt, the others are a token each."""

    logits: Float[Tensor, "step vocab"]
    expert_ids: Int[Tensor, "layer seq k"]
    costs: Float[np.ndarray, "step column"]
    """`COLUMNS` of every step."""


@torch.inference_mode()
def decode(model: MoETransformer, token_ids: Int[Tensor, " seq"], prompt_length: int, account: Account) -> Decoded:
    """The tokens are given, not drawn, so that all ways to hold experts decode the same. `account` is the engine's; a
    resident model leaves it as it is. Call it in eval mode. What is returned lies on the CPU."""
    device = model.rotation.device
    token_ids, caches = token_ids.to(device), model.new_caches(1, len(token_ids))
    logits, expert_ids, costs = [], [], []
    for tokens in (token_ids[None, :prompt_length], *token_ids[None, prompt_length:].split(1, dim=1)):
        before, start = account.now(), perf_counter()
        scores, ids = model.extend(tokens, caches)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = perf_counter() - start
        costs.append([seconds, *(late - early for late, early in zip(account.now(), before, strict=True))])
        logits.append(scores[0].cpu())
        expert_ids.append(ids[:, 0].cpu())
    return Decoded(torch.stack(logits), torch.cat(expert_ids, dim=1), np.array(costs))
