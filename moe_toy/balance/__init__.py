"""Load-balancing schemes, one per file."""
