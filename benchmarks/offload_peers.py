"""Peers of decoding with experts in slow memory, confined to the same memory: transformers, mapped or by accelerate.

Peers are measured as they are, with as much of their files as the page cache of the system likes to hold, and confined:
their files are dropped from it (posix_fadvise, after madvise for a mapping) before every token, or every n-th, between
the times that count. A mapped model then has at most the experts of n tokens, which is what our slots have at ratio n,
and on average half of that. What the system reads ahead comes on top, which can be the whole file of a small model, so
it is measured with and without. accelerate reads every expert of a layer for each token, so it is confined before every
token only. What came from the disk (/proc/self/io) is printed beside, and tells whether they were confined. This asks
for no rights; a control group would be exact, but is for administrators.
"""

import json
import mmap
import os
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch

from moe_toy.errors import UserError
from moe_toy.export.to_huggingface import export

Parts = tuple[torch.Tensor, torch.Tensor]
"""Tokens of a prompt, and those that are decoded one by one."""


def peers(run: Path, folder: Path, parts: Parts, ratios: Sequence[int], samples: int) -> None:
    """Print the speed of transformers' model of the same weights, which it has from a folder that we export."""
    try:
        import accelerate
        import transformers
    except ImportError:
        print("peers: transformers and accelerate are not installed")
        return
    from safetensors.torch import save_file

    try:
        export(run, folder)
    except UserError as error:
        print(f"peers: {error}")
        return
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    # As the model has them: the folder names experts one by one, and its tensors would match nothing.
    save_file(theirs.state_dict(), folder / "mapped.safetensors")
    mapping = Mapping(folder / "mapped.safetensors")
    theirs.load_state_dict(mapping.tensors(), assign=True)
    decode_mapped = partial(_decode_theirs, theirs, parts, mapping.drop)
    for every in (None, *ratios):
        _time_theirs("mapped", samples, every, decode_mapped)
    mapping.memory.madvise(mmap.MADV_RANDOM)
    for every in ratios:
        _time_theirs("mapped, nothing read ahead", samples, every, decode_mapped)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    theirs = accelerate.disk_offload(theirs, folder / "offload", execution_device=torch.device("cpu"))
    os.sync()  # only what is on the disk can be dropped
    decode_theirs = partial(_decode_theirs, theirs, parts, partial(drop, folder / "offload"))
    for every in (None, 1):
        _time_theirs("accelerate disk_offload", samples, every, decode_theirs)


class Mapping:
    """The tensors of a safetensors file: experts lie in the mapped file, the others in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            os.fsync(file.fileno())
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def tensors(self) -> dict[str, torch.Tensor]:
        length = int.from_bytes(self.memory[:8], "little")
        header = json.loads(self.memory[8 : 8 + length])
        return {name: self._tensor(name, said, 8 + length) for name, said in header.items() if name != "__metadata__"}

    def drop(self) -> None:
        self.memory.madvise(mmap.MADV_DONTNEED)
        drop(self.path.parent, self.path.name)

    def _tensor(self, name: str, said: dict, first: int) -> torch.Tensor:
        if said["dtype"] != "F32":
            raise UserError(f"{self.path}: {name} is {said['dtype']}, and only F32 is expected")
        start, end = (first + offset for offset in said["data_offsets"])
        if start == end:
            return torch.zeros(said["shape"])
        tensor = torch.frombuffer(self.memory, dtype=torch.float32, count=(end - start) // 4, offset=start)
        tensor = tensor.view(said["shape"])
        return tensor if ".experts." in name else tensor.clone()


def drop(folder: Path, names: str = "*.dat") -> None:
    """From the page cache, as far as nobody has mapped them."""
    for path in folder.glob(names):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def read_from_disk() -> int:
    """Bytes, by this process."""
    return int(re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[1])


def _time_theirs(
    name: str, samples: int, every: int | None, decode_theirs: Callable[[int | None], tuple[float, float]]
) -> None:
    seconds, read = zip(*[decode_theirs(every) for _ in range(samples)], strict=True)
    confined = "unconfined" if every is None else f"dropped before every {every}. token"
    print(f"{name}, {confined}: {1 / median(seconds):.1f} tokens/s, {median(read) / 1e6:.1f} MB read per token")


@torch.inference_mode()
def _decode_theirs(
    model: torch.nn.Module, parts: Parts, drop: Callable[[], None], every: int | None
) -> tuple[float, float]:
    """Seconds and bytes read of a token."""
    prompt, decoded = parts
    cache = model(input_ids=prompt[None], use_cache=True).past_key_values
    seconds, before = 0.0, read_from_disk()
    for number, token in enumerate(decoded):
        if every is not None and number % every == 0:
            drop()
        start = time.perf_counter()
        cache = model(input_ids=token[None, None], past_key_values=cache, use_cache=True).past_key_values
        seconds += time.perf_counter() - start
    return seconds / len(decoded), (read_from_disk() - before) / len(decoded)
