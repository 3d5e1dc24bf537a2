"""What the engine costs, measured on real servers. `python -m benchmarks.run` runs everything."""
