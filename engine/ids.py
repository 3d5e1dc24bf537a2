"""Hands in randomness: the ids that are not derived from something else."""

import secrets
from typing import Final, Protocol


class Ids(Protocol):
    """Where the engine gets fresh ids."""

    def new(self, prefix: str) -> str:
        """An id nobody can guess, as in `pay_…`."""


# Payment ids go to providers as they are, and Alipay takes letters, digits and underscores only.
_PLAIN: Final = str.maketrans("-_", "xy")


class RandomIds:
    """127 bits from the operating system, in letters and digits."""

    def new(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_urlsafe(16).translate(_PLAIN)}"
