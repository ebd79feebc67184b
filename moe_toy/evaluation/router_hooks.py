"""Read the routing of a transformers model through hooks, without touching its code.

What is read are the experts that the model used, never a top-k of our own where the model shows its choice: a bias on
the selection, groups of experts or dropped tokens need no special case then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from moe_toy.errors import UserError
from moe_toy.model.router import best_first

Choice = Int[Tensor, "token k"]
"""Best expert first."""


@dataclass(frozen=True)
class Family:
    """Where a family of models shows its routing."""

    modules: str
    """Regular expression of the names of the modules to watch."""
    shows: Literal["input", "output"]
    """Whether the routing is among the arguments of the module or in what it returns."""
    read: Callable[[nn.Module, tuple[Any, ...]], Choice]
    experts: str | None = None
    """Regular expression of the modules that hold the experts' parameters, where known."""


def by_weight(module: nn.Module, arguments: tuple[Any, ...]) -> Choice:
    """(hidden, ids, weights): some routers list their choice in no order, so weights decide; ties: the lower index."""
    _, ids, weights = arguments[:3]
    ids, order = ids.sort(-1)
    return ids.gather(-1, best_first(weights.gather(-1, order), ids.shape[-1]))


def as_listed(module: nn.Module, arguments: tuple[Any, ...]) -> Choice:
    """(hidden, ids, weights), best first although the weights, each normalised on its own, do not say so."""
    return arguments[1]


def of_switch(module: nn.Module, output: tuple[Any, ...]) -> Choice:
    """A one-hot row for each token, the probability of its expert, and the logits."""
    used, _, logits = output
    return _used_first(used.float(), logits, top_k=1)


def of_nllb(module: nn.Module, output: tuple[Any, ...]) -> Choice:
    """A one-hot row for the best expert, the gates of all experts, 0 where not used, and the logits."""
    _, gates, logits = output
    return _used_first(gates, logits, top_k=2)


def _used_first(gates: Float[Tensor, "*token expert"], logits: Float[Tensor, "*token expert"], top_k: int) -> Choice:
    """A token that was dropped, since its expert was full, counts for the expert that it would have gone to."""
    ranking = torch.where(gates > 0, 1 + gates, logits.softmax(-1))
    return best_first(ranking.flatten(0, -2), top_k)


def of_jetmoe(module: nn.Module, output: tuple[Any, ...]) -> Choice:
    """Token slots sorted by expert, and how many each expert got: undoing the sort gives the experts of each slot."""
    slots, _, _, expert_sizes, _ = output
    experts = torch.arange(module.num_experts, device=slots.device).repeat_interleave(
        torch.tensor(expert_sizes, device=slots.device)
    )
    return torch.empty_like(slots).scatter_(0, slots, experts).view(-1, module.top_k)


EXPERTS = r".*\.experts"
EVERY_OTHER_FAMILY = Family(EXPERTS, "input", by_weight, EXPERTS)
FAMILIES = {  # by config.model_type; one entry for each that differs
    "phimoe": Family(EXPERTS, "input", as_listed, EXPERTS),
    "jetmoe": Family(r".*\.mlp\.router", "output", of_jetmoe, r".*\.(mlp|experts)\.(input|output)_linear"),
    "nllb-moe": Family(r".*\.ffn\.router", "output", of_nllb, EXPERTS),
    "switch_transformers": Family(r".*\.mlp\.router", "output", of_switch, EXPERTS),
}


def family_of(model_type: str) -> Family:
    return FAMILIES.get(model_type, EVERY_OTHER_FAMILY)


class RouterHooks:
    """Keeps what each router of `model` decides during a forward pass within `watching`, until `take` asks for it."""

    def __init__(self, model: nn.Module, family: Family, *, within: str = "") -> None:
        """`within`, a regular expression, is how the names begin that are searched."""
        named = {name: module for name, module in model.named_modules() if re.match(within, name)}
        self.modules = {name: module for name, module in named.items() if re.fullmatch(family.modules, name)}
        if not self.modules:
            raise UserError(
                f"no MoE layers found: of {len(named)} modules none matches {family.modules!r}, for instance "
                f"{', '.join(_kinds(named))}; name its routers with target.router_modules=REGEX and "
                "target.router_output=logits or indices"
            )
        self.layer_ids = tuple(_layer_of(name) for name in self.modules)
        self.num_experts = self._same_everywhere(
            {name: getattr(module, "num_experts", None) for name, module in self.modules.items()}, "experts"
        )
        self._family = family
        self._seen: dict[str, list[tuple[Any, ...]]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks are on the model within this block only, whatever happens in it."""
        self._seen.clear()
        handles = []
        try:
            for name, module in self.modules.items():
                if self._family.shows == "input":
                    handles.append(module.register_forward_pre_hook(self._keep_arguments(name), with_kwargs=True))
                else:
                    handles.append(module.register_forward_hook(self._keep_output(name)))
            yield
        except BaseException:
            self._seen.clear()
            raise
        finally:
            for handle in handles:
                handle.remove()

    def take(self, batch: int) -> Int[Tensor, "layer {batch} seq k"]:
        """The routing of the last forward pass, on the CPU."""
        choices = []
        seen, self._seen = self._seen, {}
        for name, module in self.modules.items():
            calls = seen.get(name, [])
            if len(calls) != 1:
                raise UserError(
                    f"{name} was called {len(calls)} times in a forward pass, so it tells no routing; name other "
                    "modules with target.router_modules=REGEX"
                )
            try:
                choices.append(self._family.read(module, calls[0]).cpu().unflatten(0, (batch, -1)))
            except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
                raise UserError(
                    f"{name} does not show its routing as known families do ({error}); name the routers with "
                    "target.router_modules=REGEX and target.router_output=logits or indices"
                ) from error
        top_k = {name: choice.shape[-1] for name, choice in zip(self.modules, choices, strict=True)}
        self._same_everywhere(top_k, "experts per token")
        return torch.stack(choices)

    def _same_everywhere(self, numbers: dict[str, int | None], meaning: str) -> int | None:
        """The number that all layers have; raises `UserError`, naming layers, where they differ."""
        layers: dict[int, list[int]] = {}
        for layer, number in zip(self.layer_ids, numbers.values(), strict=True):
            if number is not None:
                layers.setdefault(number, []).append(layer)
        if len(layers) > 1:
            listed = "; ".join(f"{number} in layer {', '.join(map(str, found))}" for number, found in layers.items())
            raise UserError(
                f"the layers of this model differ in their number of {meaning} ({listed}); only layers that are alike "
                "can be measured together: choose some with target.router_modules=REGEX and target.router_output"
            )
        return next(iter(layers), None)

    def _keep_arguments(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._seen.setdefault(name, []).append((*args, *kwargs.values()))

        return keep

    def _keep_output(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            values = output.values() if isinstance(output, dict) else output
            self._seen.setdefault(name, []).append((values,) if isinstance(values, Tensor) else tuple(values))

        return keep


def named_by_user(
    modules: str, output: Literal["logits", "indices"], top_k: int | None, num_experts: int | None = None
) -> Family:
    """A family that this file does not know: modules which return the logits, or the indices, of a router first.

    Where `num_experts` is known, as many logits must be there: weights of the chosen experts are no logits.
    """

    def from_logits(module: nn.Module, returned: tuple[Any, ...]) -> Choice:
        logits = _first(returned, is_float=True)
        if num_experts is not None and logits.shape[-1] != num_experts:
            raise ValueError(
                f"it returns {logits.shape[-1]} numbers a token, which are no logits of {num_experts} experts; "
                "target.num_experts says if there are others"
            )
        return best_first(logits.float().flatten(0, -2), top_k)

    def from_indices(module: nn.Module, returned: tuple[Any, ...]) -> Choice:
        return _first(returned, is_float=False).flatten(0, -2)

    return Family(modules, "output", from_logits if output == "logits" else from_indices)


def _first(returned: tuple[Any, ...], *, is_float: bool) -> Tensor:
    tensors = [part for part in returned if isinstance(part, Tensor)]
    if not (found := [tensor for tensor in tensors if tensor.is_floating_point() == is_float]):
        raise ValueError(f"it returns no {'logits' if is_float else 'indices'}")
    return found[0]


def _layer_of(name: str) -> int:
    number = re.search(r"\.(\d+)\.", f".{name}.")
    return int(number[1]) if number else 0


def _kinds(named: dict[str, nn.Module], shown: int = 8) -> list[str]:
    """Names of modules with layer numbers left out, those of deep modules last."""
    kinds = dict.fromkeys(re.sub(r"\d+", "N", name) for name in named if name)
    return sorted(kinds, key=lambda name: (name.count("."), name))[-shown:]
