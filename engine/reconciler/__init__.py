"""Compares Redis, Postgres and the streams, and says which invariants hold. Changes nothing."""

from engine.reconciler.check import check
from engine.reconciler.finding import INVARIANTS, Finding

__all__ = ["INVARIANTS", "Finding", "check"]
