"""Floor 3: a loaded model that answers, beside its batcher."""
