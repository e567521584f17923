"""Floor 1: small pure steps between what people send and what models take; they know `core` alone."""
