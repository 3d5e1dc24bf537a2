"""What a room may expect, as a forecast says it: made sound, and carried on. Knows no visitor."""

import math
from typing import Any, Final

OUTLOOK_MAX: Final = 1e9


def bounded(outlook: Any) -> Any:
    """What answers can be computed from: neither negative nor infinite, nor not a number."""
    amounts = outlook._asdict()
    segments = tuple(
        (seconds, rate)
        for seconds, rate in amounts.pop("segments")
        if 0 < seconds <= OUTLOOK_MAX and 0 <= rate <= OUTLOOK_MAX
    )
    sound = {name: _sound(amount) for name, amount in amounts.items()}
    sound["places_per_second"] = max(1e-9, sound["places_per_second"])
    return outlook._replace(segments=segments, **sound)


def _sound(value: float) -> float:
    return min(value, OUTLOOK_MAX) if value > 0 else 0.0


def grown(leaving: float, at: float, seconds: float) -> float:
    return math.exp(leaving * at) * math.expm1(leaving * seconds) / leaving


def is_gone(look: Any) -> bool:
    """Whether there is nothing left to wait for."""
    if look.state is None:
        return False
    if look.state == "closed" or look.now_ms >= look.closes_at_ms:
        return True
    # Nothing sold either: the counters are lost or being rebuilt.
    return bool(look.state != "draining" and look.available == look.reserved == 0 < look.sold)
