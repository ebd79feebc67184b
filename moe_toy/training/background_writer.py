"""Checkpoints that are written while training goes on."""

import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor

from moe_toy.runs.checkpoint_file import save_checkpoint, tensors_in
from moe_toy.training.memory import GIB, TIGHT, free_memory

log = logging.getLogger(__name__)


class BackgroundWriter:
    """Writes one checkpoint at a time on a thread of its own, from a copy in the memory of the host.

    What goes wrong there is raised by the next `check` or `wait`.
    """

    def __init__(self) -> None:
        self.thread: Thread | None = None
        self.error: BaseException | None = None
        self.cancelled = Event()
        self.has_said_why_not = False

    def write(self, content: Any, path: Path, *, then: Callable[[], None], only_if_it_fits: bool) -> None:
        """Save `content` as it is now, and call `then` once it is all on the disk; at once where there must be room
        for the copy and is none."""
        self.wait()
        if only_if_it_fits and not self._fits(content):
            save_checkpoint(content, path)
            then()
            return
        self.cancelled.clear()
        self.thread = Thread(target=self._run, args=(copy_to_host(content), path, then), name="checkpoint")
        self.thread.start()

    def check(self) -> None:
        """Raise what went wrong, if it has by now."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Return once nothing is being written, or raise what went wrong."""
        self.join()
        self.check()

    def join(self) -> None:
        """Return once nothing is being written."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def cancel(self) -> None:
        """Give up what is being written; the file will not be there."""
        self.cancelled.set()

    def _run(self, content: Any, path: Path, then: Callable[[], None]) -> None:
        try:
            save_checkpoint(content, path, self.cancelled.is_set)
            then()
        except BaseException as error:  # for the main thread to raise
            self.error = error

    def _fits(self, content: Any) -> bool:
        free, size = free_memory(on_gpu=False), size_of(content)
        fits = free is not None and size <= TIGHT * free
        if not fits and not self.has_said_why_not:
            self.has_said_why_not = True
            there = "an unknown amount" if free is None else f"{free / GIB:.1f} GiB"
            log.info("checkpoints hold up training: a copy takes %.1f GiB of memory; %s is free", size / GIB, there)
        return fits


def size_of(content: Any) -> int:
    """Bytes of its tensors."""
    storages = (tensor.untyped_storage() for tensor in tensors_in(content))
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


@torch.no_grad()
def copy_to_host(content: Any) -> Any:
    """A copy that no optimiser step changes, all of it on the CPU; tensors share in it what they shared."""
    storages: dict[int, torch.UntypedStorage] = {}
    copies: dict[int, Tensor] = {}
    for tensor in tensors_in(content):
        if type(tensor) is not Tensor:
            continue  # left to `deepcopy`
        storage = tensor.untyped_storage()
        if storage._cdata not in storages:
            storages[storage._cdata] = storage.clone() if storage.device.type == "cpu" else storage.cpu()
        empty = torch.empty(0, dtype=tensor.dtype)
        copies[id(tensor)] = empty.set_(
            storages[storage._cdata], tensor.storage_offset(), tensor.size(), tensor.stride()
        )
    return deepcopy(content, copies)
