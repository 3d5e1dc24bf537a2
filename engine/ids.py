"""Hands in randomness: the ids that are not derived from something else."""

import secrets
from typing import Protocol


class Ids(Protocol):
    """Where the engine gets fresh ids."""

    def new(self, prefix: str) -> str:
        """An id nobody can guess, as in `pay_…`."""


class RandomIds:
    """128 bits from the operating system."""

    def new(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_urlsafe(16)}"
