"""From text domains to batches of token sequences."""
