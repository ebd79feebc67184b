"""Tests of moe_toy: two threads, or one in each of several workers; no network, no telemetry."""

import os

# libraries read these when they are first imported, and conftest.py imports many; workers inherit what their parent set
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
