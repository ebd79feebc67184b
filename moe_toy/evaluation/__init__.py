"""From a checkpoint, a pre-trained model or recorded traces to the tables of `moe_toy.results`."""
