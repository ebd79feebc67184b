"""Grids of runs that survive interruption: what is finished is skipped, what was interrupted goes on."""

import moe_toy.runs.run_name  # noqa: F401  a launcher resolves the names of arms in processes that import little else
