"""Figures and tables from measured values."""
