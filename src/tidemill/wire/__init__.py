"""Floor 2: frames between the processes of one service."""
