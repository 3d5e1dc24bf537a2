"""HTTP and the command line: the borders of the engine."""
