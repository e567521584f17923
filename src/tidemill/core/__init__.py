"""Floor 0: nouns, errors, protocols, registry, settings. Imports nothing of ours, runs in every process."""
