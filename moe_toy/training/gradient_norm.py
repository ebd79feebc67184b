"""The norm of all gradients: looked at by one, clipped by another, computed once."""

from collections.abc import Iterable

from torch import Tensor, nn

Version = tuple[int, int] | None


class GradientNorm:
    """`value` is that of the gradients as they were then."""

    def __init__(self, value: Tensor, parameters: Iterable[nn.Parameter]) -> None:
        self.value = value
        self._versions = versions_of_gradients(parameters)

    def is_of(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Whether nobody has changed a gradient since, but by its `data`, which nobody sees."""
        return versions_of_gradients(parameters) == self._versions


def versions_of_gradients(parameters: Iterable[nn.Parameter]) -> list[Version]:
    """Another number for each tensor, and one that every operation in place counts up."""
    gradients = (parameter.grad for parameter in parameters)
    return [None if gradient is None else (id(gradient), gradient._version) for gradient in gradients]
