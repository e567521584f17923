"""Floor 4: one request's way through admission, run and meter."""
