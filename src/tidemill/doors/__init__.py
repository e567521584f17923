"""Floor 5: the outside speaks; doors translate, nothing else."""
