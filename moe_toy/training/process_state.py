"""What a run sets in its process, and puts back: other runs may follow in it, or a user's own work."""

import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from moe_toy.errors import STOP_SIGNALS
from moe_toy.training.session import TALKATIVE


@contextmanager
def process_restored() -> Iterator[None]:
    """However the block ends, leave the environment, random numbers, threads, warnings, levels of loggers, handlers of
    signals and torch's switches as they were."""
    environment, levels = dict(os.environ), {name: logging.getLogger(name).level for name in TALKATIVE}
    numbers = random.getstate(), np.random.get_state(), torch.get_rng_state()
    switches = {
        torch.set_num_threads: torch.get_num_threads(),
        torch.set_default_dtype: torch.get_default_dtype(),
        torch.set_grad_enabled: torch.is_grad_enabled(),
        torch.set_float32_matmul_precision: torch.get_float32_matmul_precision(),
        torch.use_deterministic_algorithms: torch.are_deterministic_algorithms_enabled(),
        torch.autograd.set_detect_anomaly: torch.is_anomaly_enabled(),
    }
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        with warnings.catch_warnings():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for switch, value in switches.items():
            switch(value)
        for put_back, state in zip((random.setstate, np.random.set_state, torch.set_rng_state), numbers, strict=True):
            put_back(state)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
