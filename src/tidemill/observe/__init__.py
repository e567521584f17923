"""Floor 1: metrics, logs, traces."""
