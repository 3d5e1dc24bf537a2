"""Runs locust with our kit as its user does: other processes, because it patches whatever it runs in."""

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.program import SECONDS_MAX

COMMAND = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py"]
FOLDER = Path(__file__).parents[2]


@dataclass
class Told:
    """What a run said: its exit code, all of its words, and the tally in them."""

    code: int
    text: str

    @property
    def tally(self) -> dict[str, int]:
        _, found, rest = self.text.partition("Doorbuster tally\n")
        assert found, self.text
        rows = re.findall(r"^  (\w+) +([\d,]+)", rest.partition("\n\n")[0], re.MULTILINE)
        return {name: int(count.replace(",", "")) for name, count in rows}


class Locust:
    """One locust process that runs."""

    def __init__(self, **options: object) -> None:
        words = [word for name, value in options.items() for word in _words(name, value)]
        self._process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=FOLDER,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> Told:
        """Waits for its end."""
        try:
            text, _ = self._process.communicate(timeout=SECONDS_MAX)
        finally:
            self._process.kill()
        return Told(self._process.returncode, text)


def shop(options: Mapping[str, object]) -> Told:
    """A headless run in one process."""
    return Locust(headless=True, only_summary=True, **options).end()


def _words(name: str, value: object) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    return [option] if value is True else [option, str(value)]
