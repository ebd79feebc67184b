"""Decoding with experts in slow memory: what the engine costs and reaches, and peers beside it.

python benchmarks/offload.py RUN_DIRECTORY [--threads=1] [--samples=3]

Prints what the disk store reaches of a plain loop of preadv, what decoding out of slots costs where nothing is missed,
and tokens per second of the same model, on the same tokens: ours at several cache ratios, without and with loading
ahead; transformers with its experts mapped from the file; transformers with all weights on disk, by accelerate.

Peers are measured as they are, with as much of their files as the page cache of the system likes to hold, and confined:
their files are dropped from it (posix_fadvise, after madvise for a mapping) before every token, or every n-th, between
the times that count. A mapped model then has at most the experts of n tokens, which is what our slots have at ratio n,
and on average half of that. What the system reads ahead comes on top, which can be the whole file of a small model, so
it is measured with and without. accelerate reads every expert of a layer for each token, so it is confined before every
token only. What came from the disk (/proc/self/io) is printed beside, and tells whether they were confined. This asks
for no rights; a control group would be exact, but is for administrators.
"""

import argparse
import json
import mmap
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from moe_toy.errors import UserError
from moe_toy.evaluation.checkpoint import CheckpointTarget
from moe_toy.evaluation.settings import Options
from moe_toy.export.to_huggingface import export
from moe_toy.model.transformer import MoETransformer
from moe_toy.offload.cache import Cache, Step, new_caches
from moe_toy.offload.decode import COLUMNS, decode
from moe_toy.offload.engine import Account, Engine
from moe_toy.offload.experts import offloaded
from moe_toy.offload.readers import open_direct, open_reader
from moe_toy.offload.store import Store, write_store

PROMPT, DECODED = 64, 64
RATIOS = (1, 2, 4, 8)
THREADS = 4
READS, PAIRS = 512, 3
"""That bandwidth is measured by, and how often."""
MANAGEMENT = COLUMNS.index("management")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=1, help="that compute")
    parser.add_argument("--samples", type=int, default=3, help="repetitions, of which the median is shown")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = CheckpointTarget(path=arguments.run, device="cpu", batch_size=1, options=Options()).load().model.eval()
    torch.manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (PROMPT + DECODED,))
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(model, Path(folder) / "experts.bin", "float32")
        bandwidth(store)
        ours(model, store, tokens, arguments.samples)
        peers(arguments.run, Path(folder) / "exported", tokens, arguments.samples)


def bandwidth(store: Store) -> None:
    """Random rows, as the engine reads them and as a loop that does nothing else."""
    rows = random.Random(0).choices(range(store.layout.num_rows), k=READS)
    with closing(engine_of(store, READS)) as engine:
        file = open_direct(store.path)

        def plain(row: int, slot: int) -> None:
            os.preadv(file, [engine.buffers[slot]], store.offset(row))

        def all_at_once(part: list[int]) -> None:
            for slot in part:
                plain(rows[slot], slot)

        seconds: dict[str, list[float]] = {"plain": [], "engine": []}
        for _ in range(PAIRS):
            start = time.perf_counter()
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(all_at_once, [list(range(READS))[thread::THREADS] for thread in range(THREADS)]))
            seconds["plain"].append(time.perf_counter() - start)
            engine.start([AllMissed()])
            start = time.perf_counter()
            for _ in engine.fetch(0, rows):
                pass
            seconds["engine"].append(time.perf_counter() - start)
        os.close(file)
    ours, theirs = min(seconds["engine"]), min(seconds["plain"])
    speed = READS * store.layout.row_bytes / ours / 1e9
    print(f"disk: {speed:.2f} GB/s, {theirs / ours:.0%} of plain preadv ({store.layout.row_bytes >> 10} KiB rows)")


class AllMissed(Cache):
    """Everything is missed, and each row has a slot."""

    def look_up(self, items: Sequence[int]) -> list[Step]:
        return [Step(item, slot, True) for slot, item in enumerate(items)]


def engine_of(store: Store, num_slots: int, ahead: int = 0) -> Engine:
    sizes = {"row_bytes": store.layout.row_bytes, "num_slots": num_slots, "ahead": ahead}
    return Engine(open_reader(store, "disk"), threads=THREADS, **sizes)


def ours(model: MoETransformer, store: Store, tokens: torch.Tensor, samples: int) -> None:
    layout = store.layout
    resident: list[float] = []
    cached: list[float] = []
    with closing(engine_of(store, layout.num_rows)) as engine:
        for _ in range(samples):
            resident.append(token_seconds(decode(model, tokens, PROMPT, Account()).costs))
            engine.start(new_caches("lru", [], layout.num_rows, layout.num_layers))
            with offloaded(model, engine, layout):
                decode(model, tokens, PROMPT, engine.account)
                cached.append(token_seconds(decode(model, tokens, PROMPT, engine.account).costs))
    print(f"resident: {1 / median(resident):.0f} tokens/s")
    print(f"all experts cached: {median(cached) / median(resident):.2f} times the time of resident decoding")
    top_k = model.config.moe.top_k
    for ratio, ahead in ((ratio, ahead) for ratio in RATIOS for ahead in (0, top_k)):
        capacity = min(ratio * layout.num_layers * top_k, layout.num_rows + ahead)
        if capacity < ahead + top_k:
            continue
        seconds, managed, before = [], [], read_from_disk()
        with closing(engine_of(store, capacity, ahead)) as engine, offloaded(model, engine, layout):
            for _ in range(samples):
                engine.start(new_caches("lru", [], capacity - ahead, layout.num_layers))
                costs = decode(model, tokens, PROMPT, engine.account).costs
                seconds.append(token_seconds(costs))
                managed.append(costs[1:, MANAGEMENT].sum() / costs[1:, 0].sum())
        read = (read_from_disk() - before) / samples / DECODED / 1e6
        print(
            f"ours, ratio {ratio}{', prefetch' * bool(ahead)}: {1 / median(seconds):.1f} tokens/s, "
            f"{median(managed):.1%} management, {read:.1f} MB read per token (with those of the prompt)"
        )


def peers(run: Path, folder: Path, tokens: torch.Tensor, samples: int) -> None:
    """transformers' model of the same weights, which it has from a folder that we export."""
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
    decode_mapped = partial(_decode_theirs, theirs, tokens, mapping.drop)
    for every in (None, *RATIOS):
        _time_theirs("mapped", samples, every, decode_mapped)
    mapping.memory.madvise(mmap.MADV_RANDOM)
    for every in RATIOS:
        _time_theirs("mapped, nothing read ahead", samples, every, decode_mapped)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    theirs = accelerate.disk_offload(theirs, folder / "offload", execution_device=torch.device("cpu"))
    os.sync()  # only what is on the disk can be dropped
    decode_theirs = partial(_decode_theirs, theirs, tokens, partial(drop, folder / "offload"))
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
    model: torch.nn.Module, tokens: torch.Tensor, drop: Callable[[], None], every: int | None
) -> tuple[float, float]:
    """Seconds and bytes read of a token."""
    cache = model(input_ids=tokens[None, :PROMPT], use_cache=True).past_key_values
    seconds, before = 0.0, read_from_disk()
    for number, token in enumerate(tokens[PROMPT:]):
        if every is not None and number % every == 0:
            drop()
        start = time.perf_counter()
        cache = model(input_ids=token[None, None], past_key_values=cache, use_cache=True).past_key_values
        seconds += time.perf_counter() - start
    return seconds / DECODED, (read_from_disk() - before) / DECODED


def token_seconds(costs: np.ndarray) -> float:
    return float(costs[1:, 0].mean())


if __name__ == "__main__":
    main()
