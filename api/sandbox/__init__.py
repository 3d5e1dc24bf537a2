"""A payment gateway to practise with: real HTTP, real signatures, real webhooks, no money.

It runs as a process of its own and remembers everything in one SQLite file.
"""

from api.sandbox.gateway import run_sandbox

__all__ = ["run_sandbox"]
