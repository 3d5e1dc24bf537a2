"""The peers our front is held against: programs of other make that do the same, or less."""
