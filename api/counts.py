"""Counts requests in plain integers and hands them to the metrics once a second."""

from collections import Counter
from typing import Final

from engine import metrics

FLUSH_SECONDS: Final = 1.0


class Counts:
    """One process's counts since the last flush. Labels are bounded by routes, statuses, outcomes."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.shed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def flush(self) -> None:
        for outcome, count in self.outcomes.items():
            metrics.reservations.labels(outcome).inc(count)
        for (route, status), count in self.requests.items():
            metrics.requests.labels(route, str(status)).inc(count)
        for reason, count in self.shed.items():
            metrics.shed.labels(reason).inc(count)
        for reason, count in self.refused.items():
            metrics.refused.labels(reason).inc(count)
        for counter in (self.outcomes, self.requests, self.shed, self.refused):
            counter.clear()
