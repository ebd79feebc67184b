"""A transformers model that shows its routing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from moe_toy.errors import UserError
from moe_toy.evaluation.encoder_decoder import Inputs, copied, masked
from moe_toy.evaluation.router_hooks import Family, RouterHooks
from moe_toy.evaluation.target import LoadedModel, Observation, in_eval_mode
from moe_toy.model.cross_entropy import most_likely, next_token_losses
from moe_toy.routing import RoutingTrace

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

NUM_EXPERTS_NAMES = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
PART_NAMES = {"encoder": r"(.*\.)?encoder\.", "decoder": r"(.*\.)?decoder\.", None: ""}


class PretrainedModel(LoadedModel):
    """`sentinel_ids` are the mask tokens of a mask-filling model; `num_experts` overrides what the model says."""

    def __init__(
        self,
        model: PreTrainedModel,
        family: Family,
        *,
        part: Literal["encoder", "decoder"] | None = None,
        num_experts: int | None = None,
        sentinel_ids: list[int] | None = None,
    ) -> None:
        self.model = model
        self.part = part
        self.hooks = RouterHooks(model, family, within=PART_NAMES[part])
        self.num_experts = num_experts or self.hooks.num_experts or first_number(model.config, NUM_EXPERTS_NAMES)
        if self.num_experts is None:
            raise UserError(
                "neither the routers nor the config say how many experts there are; give target.num_experts"
            )
        self.sentinel_ids = sentinel_ids
        self.vocab_size = model.config.get_text_config().vocab_size
        self.total_parameters = model.num_parameters()
        self._expert_modules = family.experts
        self.active_parameters: int | None = None

    @torch.inference_mode()
    def observe(self, token_ids: Int[Tensor, "batch seq"]) -> Observation:
        """In evaluation mode, and without a trace in the model: no hook stays, and its mode is as it was."""
        if self.part is not None:
            return self._observe_part(self._inputs(token_ids))
        token_ids = token_ids.to(self.model.device)
        with in_eval_mode(self.model), self.hooks.watching():
            logits = self.model(input_ids=token_ids, use_cache=False).logits
        return Observation(
            self.trace(token_ids, vocab_size=self.vocab_size, predicted_ids=most_likely(logits)),
            losses_by_sequence(logits, token_ids),
        )

    def _observe_part(self, inputs: Inputs) -> Observation:
        """One side of an encoder-decoder model: no next-token loss, and no vocabulary specialization."""
        encoder_ids = inputs.encoder.to(self.model.device)
        if self.part == "encoder":
            with in_eval_mode(self.model), self.hooks.watching():
                self.model.get_encoder()(input_ids=encoder_ids)
            return Observation(self.trace(encoder_ids), None)
        decoder_ids = inputs.decoder.to(self.model.device)
        with in_eval_mode(self.model), self.hooks.watching():
            self.model(input_ids=encoder_ids, decoder_input_ids=decoder_ids, use_cache=False)
        return Observation(self.trace(decoder_ids), None)

    def _inputs(self, token_ids: Int[Tensor, "batch seq"]) -> Inputs:
        config = self.model.config
        start_id = getattr(config, "decoder_start_token_id", None)
        start_id = config.pad_token_id if start_id is None else start_id
        if self.sentinel_ids is None:
            return copied(token_ids, start_id=start_id)
        return masked(token_ids, start_id=start_id, sentinel_ids=self.sentinel_ids)

    def trace(
        self, token_ids: Tensor, vocab_size: int | None = None, predicted_ids: Tensor | None = None
    ) -> RoutingTrace:
        expert_ids = self.hooks.take(batch=len(token_ids))
        self._check(expert_ids)
        if self.active_parameters is None:
            self.active_parameters = self._active_parameters(expert_ids.shape[-1])
        return RoutingTrace(
            expert_ids=expert_ids,
            token_ids=token_ids,
            num_experts=self.num_experts,
            layer_ids=self.hooks.layer_ids,
            vocab_size=vocab_size,
            predicted_ids=predicted_ids,
        )

    def _check(self, expert_ids: Int[Tensor, "layer batch seq k"]) -> None:
        """Before they are kept in small integers, which would make other experts of them."""
        lowest, highest = (int(extreme) for extreme in expert_ids.aminmax())
        if highest >= self.num_experts:
            raise UserError(
                f"a router chose expert {highest} of {self.num_experts}; give target.num_experts, at least "
                f"{highest + 1}"
            )
        if lowest < 0:
            raise UserError(
                f"a router chose expert {lowest}, which is none; name other modules with target.router_modules=REGEX"
            )

    def _active_parameters(self, top_k: int) -> int | None:
        """All parameters but those of the experts that a token does not use."""
        if self._expert_modules is None:
            return None
        in_experts = sum(
            parameter.numel()
            for name, module in self.model.named_modules()
            if re.fullmatch(self._expert_modules, name)
            for parameter in module.parameters()
        )
        return self.total_parameters - in_experts + in_experts * top_k // self.num_experts


def losses_by_sequence(
    logits: Float[Tensor, "batch seq vocab"], token_ids: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch target"]:
    """Sequence by sequence: in fp32 the logits of a large vocabulary are the largest tensor by far."""
    return torch.cat([next_token_losses(*pair) for pair in zip(logits.split(1), token_ids.split(1), strict=True)])


def first_number(config: PretrainedConfig, names: tuple[str, ...]) -> int | None:
    """What a config says under whichever name its family uses."""
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)
