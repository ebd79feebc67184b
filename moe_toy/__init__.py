"""Train small Mixture-of-Experts language models and watch where their tokens go."""
