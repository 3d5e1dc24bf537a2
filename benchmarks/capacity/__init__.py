"""How much the whole engine carries, measured from outside over HTTP by an open-loop generator.

Each group is a module with `measure(folder, quick=False) -> dict`; `python -m benchmarks.capacity.<group>`
runs it alone. What they have in common is in `stand` (the engine under test), `load` and `step`.
"""
