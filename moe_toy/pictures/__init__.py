"""What a run directory and the loggers show as pictures."""
