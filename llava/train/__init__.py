"""Training: `python -m llava.train`."""
