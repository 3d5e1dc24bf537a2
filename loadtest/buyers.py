"""Hands out the tokens of a file, each once, so that every purchase is another buyer's.

Reads the file as it goes: a million tokens take no room. Knows nothing of locust.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

TOKENS_DEFAULT: Final = "tokens.txt"


class NoTokens(Exception):
    """There is no file of tokens, or nothing in it. One sentence that says what to do."""


class Buyers:
    """One process' share of a file of tokens: every `parts`-th line from the `part`-th on."""

    def __init__(self) -> None:
        self._tokens: Iterator[str] | None = None
        self._share: tuple[Path, int, int] | None = None
        self.rounds = 0  # How often the file came to its end.

    def open(self, path: Path, part: int = 0, parts: int = 1) -> None:
        """Takes this share. The same share once more goes on where it was. Raises NoTokens."""
        self.check(path)
        if self._share == (path, part, parts):
            return
        self._share = (path, part, parts)
        self._tokens = self._read(path, part, parts)
        self.rounds = 0

    def check(self, path: Path) -> None:
        """Raises NoTokens."""
        if not path.is_file() or not path.stat().st_size:
            raise NoTokens(
                f"{path} holds no tokens: `doorbuster token --count 10000 > {path}` makes some, "
                "or name another file with --tokens."
            )

    def next(self) -> str | None:
        """The next buyer's token; None where this process has no share."""
        return None if self._tokens is None else next(self._tokens, None)

    def _read(self, path: Path, part: int, parts: int) -> Iterator[str]:
        while True:
            found = False
            with path.open() as file:
                for line in islice(file, part, None, parts):
                    found = True
                    yield line.strip()
            if not found:  # Fewer lines than processes.
                return
            self.rounds += 1
