"""Visual projectors that give fewer tokens than the tower has features: rivals of pooling in the decoder."""
