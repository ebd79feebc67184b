"""Decoding with experts in slow memory: what the engine costs and reaches, and peers beside it.

python benchmarks/offload.py RUN_DIRECTORY [--threads=1] [--samples=3]

Prints what the disk store reaches of a plain loop of preadv, what decoding out of slots costs where nothing is missed,
and tokens per second of the same model, on the same tokens: ours at several cache ratios, without and with loading
ahead; transformers with its experts mapped from the file; transformers with all weights on disk, by accelerate.
offload_peers.py tells how these are confined to the same memory.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np
import torch
from offload_peers import peers, read_from_disk

from moe_toy.evaluation.checkpoint import CheckpointTarget
from moe_toy.evaluation.settings import Options
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
        parts = tokens[:PROMPT], tokens[PROMPT:]
        peers(arguments.run, Path(folder) / "exported", parts, RATIOS, arguments.samples)


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


def token_seconds(costs: np.ndarray) -> float:
    return float(costs[1:, 0].mean())


if __name__ == "__main__":
    main()
