"""Floor 2: models on disk."""
