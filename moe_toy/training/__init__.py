"""Lightning shells: the training step and the optimiser."""
