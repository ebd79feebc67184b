"""How Hydra runs us: a sweeper that checks jobs before they start and goes on where it stopped."""
