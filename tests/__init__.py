"""Tests of moe_toy: two threads or workers at most, no network, no telemetry."""

import os

# libraries read these when they are first imported, and conftest.py imports many
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
