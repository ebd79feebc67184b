"""Pure functions from routing decisions to additive counts, and from counts to scores."""
