"""Where the time of a training run goes: start-up, training steps, validation.

    python benchmarks/training_run.py                          # the default run
    python benchmarks/training_run.py trainer.max_steps=100 callbacks=none

Arguments are those of `train.py`. Run it once before, so that text and tokens are cached. Goals for the default run on
two cores: at most 15 s to the first optimiser step, at most 10 % of the time in validation, 10 minutes in all.
"""

import sys
import time
from pathlib import Path


def main() -> None:
    started = time.perf_counter()  # before anything heavy is imported
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import train
    from moe_toy.command_line.entry import run_app

    sys.argv += ["+callbacks.clock._target_=clock.Clock", f"+callbacks.clock.started={started}"]
    run_app(train.main, train.CONF, "train", train.OUTPUT)


if __name__ == "__main__":
    main()
