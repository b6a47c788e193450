"""Methods side by side at equal budgets: `python -m llava.bench compare` (docs/benchmarking.md)."""
