"""The way out and the way in: our checkpoints as Hugging Face folders, and such folders as our checkpoints."""
