"""A view of a Weights & Biases project that shows what our runs log."""
