"""Floor 4: models built ahead of time into what an engine loads quickly, or at all; kept in a cache by digest."""
