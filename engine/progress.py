"""How long work says how far it is."""

from collections.abc import Callable

# (what is being done, how far it is, of how many: None where nobody knows)
Progress = Callable[[str, int, int | None], None]


def silent(step: str, done: int, total: int | None) -> None:
    """Reports nothing."""
