"""Thin Lightning callbacks: accumulate metrics over a validation, log, draw."""
