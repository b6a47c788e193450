"""Evaluation: benchmarks (data and scores), the runner that answers them, and scoring without a model."""
