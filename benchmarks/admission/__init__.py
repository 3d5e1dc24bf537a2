"""What admission costs, what it does under overload, and a simulated day with a million visitors.

The command `python -m benchmarks.run admission` runs all three; each module also runs alone.
"""
