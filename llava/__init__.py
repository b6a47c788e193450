"""LLaVA-1.5 with a shrinking sequence of visual tokens: model, data, training and evaluation."""

__version__ = "0.1.0"
