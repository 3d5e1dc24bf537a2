"""Judges what a hop can take from what it did and what waits before it. Measures nothing itself."""

from math import inf
from typing import Final, NamedTuple

PACE_KEY: Final = "doorbuster:pace"  # Hash: per_second, hop, at_ms, and `hop:<name>` for each hop.


class Pace(NamedTuple):
    """Reservations per second that can be stored, and the hop that says so."""

    per_second: float  # infinity: no limit
    hop: str  # '' if there is no limit


NO_LIMIT: Final = Pace(inf, "")
