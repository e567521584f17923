"""Floor 2: all SQL. Nothing above writes a statement."""
