"""Floor 7: words and exit codes."""
