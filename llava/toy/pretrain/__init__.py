"""Pre-training of the small world's base language model and vision tower."""
