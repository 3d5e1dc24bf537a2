"""The plain forms of the kernels: the yardstick of their benchmarks, the oracle of their tests, and
what runs where ext/ is not compiled."""
