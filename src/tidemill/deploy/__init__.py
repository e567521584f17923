"""Floor 4: where models run."""
