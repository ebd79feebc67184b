"""How long a checkpoint holds up training, written at once and in the background of the next steps.

python benchmarks/checkpoint.py --megabytes 100 --rounds 7
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import nn

from moe_toy.runs.checkpoint_file import save_checkpoint
from moe_toy.training.background_writer import BackgroundWriter

WIDTH, TOKENS = 1024, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100, help="of weights and AdamW's moments")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    layers = max(1, round(arguments.megabytes * 1e6 / (3 * 4 * WIDTH**2)))
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.randn(TOKENS, WIDTH)

    def step() -> float:
        started = time.perf_counter()
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    step()
    held: dict[str, list[float]] = {"at once": [], "in the background": []}
    alone, beside, writing = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path, writer = Path(folder) / "a.ckpt", BackgroundWriter()
        for _ in range(arguments.rounds):  # taking turns
            alone += [step() for _ in range(5)]
            content = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}
            started = time.perf_counter()
            save_checkpoint(content, path)
            held["at once"].append(time.perf_counter() - started)
            started = time.perf_counter()
            writer.write(content, path, then=lambda: None, only_if_it_fits=False)
            held["in the background"].append(time.perf_counter() - started)
            while writer.thread.is_alive():
                beside.append(step())
            writing.append(time.perf_counter() - started)
            writer.wait()
        size = path.stat().st_size
    print(f"{size / 1e6:.0f} MB, {arguments.rounds} rounds, {torch.get_num_threads()} threads; medians")
    for way, seconds in held.items():
        print(f"held up {way:18} {1e3 * statistics.median(seconds):7.0f} ms")
    print(f"written in the background after {1e3 * statistics.median(writing):7.0f} ms")
    print(
        f"a step alone {1e3 * statistics.median(alone):.0f} ms, beside a write {1e3 * statistics.median(beside):.0f} ms"
    )


if __name__ == "__main__":
    main()
