"""How many shoppers there are at which moment: calm, spike at T0, decay, and time to settle.

T0 is when the sale opens, by the server's clock, or where it is open already the end of the calm.
"""

import json
import logging
import math
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from locust import LoadTestShape

from loadtest.ledger import Summary
from loadtest.shopper import HOST, read_site

logger = logging.getLogger(__name__)

AT_THE_DOOR_SECONDS: Final = 1.0  # All have come by so long before T0.
DECAY_STEPS: Final = 5
LOOK_SECONDS_MAX: Final = 10.0

Users = tuple[int, float]  # how many, and how many come or go per second


class Burst(LoadTestShape):
    """Calm, spike, decay. Ends when every process has settled its ledger."""

    # Set once by the locustfile: how things stand, over all processes.
    standing: Callable[[], Summary] = staticmethod(Summary)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._t0_s = math.inf  # in the run's time; calm until it is known

    def reset_time(self) -> None:
        super().reset_time()  # type: ignore[no-untyped-call]
        # Locust ticks meanwhile: a crowd that came already would be sent home again, tickets and all.
        opens_in_s = self._opens_in_s()
        self._t0_s = opens_in_s if opens_in_s > 0 else float(self._options.calm_seconds)
        logger.info("T0, the rush, is in %.1f s.", self._t0_s)

    def tick(self) -> Users | None:
        """What locust asks about once a second."""
        options = self._options
        run_s: float = self.get_run_time() - self._t0_s  # type: ignore[no-untyped-call]
        coming_s = options.spike_users / options.arrivals + AT_THE_DOOR_SECONDS
        if run_s < -coming_s:
            return _users(options.calm_users, options)
        if run_s < options.spike_seconds:
            return _users(options.spike_users, options)
        run_s -= options.spike_seconds
        if run_s < options.decay_seconds:
            return _users(self._decayed(run_s / options.decay_seconds), options)
        settled = type(self).standing().settled
        if settled or run_s > options.decay_seconds + options.settle_seconds:
            return None  # Whatever is open then stays open in the tally.
        return _users(0, options)

    def _decayed(self, share: float) -> int:
        """In steps: each change is a message to every worker."""
        options = self._options
        step = int(share * DECAY_STEPS) / DECAY_STEPS
        gone: float = (options.spike_users - options.calm_users) * step
        return int(options.spike_users - gone)

    def _opens_in_s(self) -> float:
        assert self.runner is not None
        host = self.runner.environment.host or HOST
        url = f"{host}/v1/sales/{self._options.sale}"
        try:
            # The address is the operator's own.
            with urllib.request.urlopen(url, timeout=LOOK_SECONDS_MAX) as answer:  # noqa: S310
                return read_site(json.load(answer)).opens_in_s
        except (OSError, ValueError, KeyError) as error:
            logger.error("%s cannot be seen: %s", url, error)
            return 0.0

    @property
    def _options(self) -> Any:
        assert self.runner is not None
        return self.runner.environment.parsed_options


def _users(count: int, options: Any) -> Users:
    return count, options.arrivals
