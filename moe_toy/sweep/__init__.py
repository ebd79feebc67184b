"""Grids of runs that survive interruption: what is finished is skipped, what was interrupted goes on."""
