"""The common part of `train.py` and `evaluate.py`: quoting, and jobs before they start."""
