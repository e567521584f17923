"""Floor 4: who asks, and what it costs."""
