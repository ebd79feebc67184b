"""A decoder-only Mixture-of-Experts language model that returns its routing decisions."""
