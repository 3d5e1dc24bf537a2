"""Doorbuster's core: reserves, drains, pays and proves. Knows nothing of HTTP."""

__version__ = "0.1.0"
