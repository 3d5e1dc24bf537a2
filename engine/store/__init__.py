"""Everything the engine says to Postgres. Knows nothing of Redis."""
