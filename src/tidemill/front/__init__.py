"""Floor 6, beside `assemble`: a process that reads and words requests for the one that holds the models."""
