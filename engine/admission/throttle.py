"""Limits each client's rate: the throttles of a front, and what their callers are told.

The algorithm and its memory are a kernel, ext/throttle.pyx.
"""

import logging
import math
from dataclasses import dataclass
from typing import Final, Self

from engine.clock import Clock
from engine.config import Settings
from ext import ClientTable
from ext import Throttle as ThrottleKernel

logger = logging.getLogger(__name__)

CLIENTS_MAX: Final = 100_000  # Of a throttle by itself; 16 bytes each.
MINUTE_SECONDS: Final = 60


class Throttle(ThrottleKernel):
    """A throttle and its name. See `admit` and `state` of the kernel.

    Those of one table share its memory, and are told apart by their kinds.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        per_second: float,
        burst: float,
        clients_max: int = CLIENTS_MAX,
        kind: str = "client",
        table: ClientTable | None = None,
    ) -> None:
        if table is None:  # Not `or`: an empty table is one too.
            table = ClientTable(clients_max)
        super().__init__(table, kind, clock, per_second=per_second, burst=burst)
        self._kind = kind
        self.policy = f'"{kind}";q={math.floor(burst)};w={math.ceil(burst / per_second)}'

    def standing(self, client: str) -> str:
        """Where a client stands, as the RateLimit field says it; `policy` is RateLimit-Policy.

        draft-ietf-httpapi-ratelimit-headers-10: what may be asked now, and the seconds until it is
        the whole burst again.
        """
        remaining, full_seconds = self.state(client)
        return f'"{self._kind}";r={remaining};t={math.ceil(full_seconds)}'


@dataclass(frozen=True)
class Throttles:
    """Those of one front, over one table. Each grants its machine's share of the rate."""

    user: Throttle  # by user id
    address: Throttle  # by address
    anonymous: Throttle  # those without a token, by address
    account: Throttle  # logins, by the account's name

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Self:
        table = open_table(settings.clients_max, settings.clients_file)

        def throttle(kind: str, per_second: float, burst: int) -> Throttle:
            machines = settings.machines
            share = max(burst / machines, 1.0)  # Less than one request would let nobody pass.
            return Throttle(
                clock, per_second=per_second / machines, burst=share, kind=kind, table=table
            )

        return cls(
            user=throttle("user", settings.throttle_per_second, settings.throttle_burst),
            address=throttle("address", settings.address_per_second, settings.address_burst),
            anonymous=throttle(
                "anonymous", settings.anonymous_per_second, settings.anonymous_burst
            ),
            account=throttle(
                "account", settings.account_per_minute / MINUTE_SECONDS, settings.account_burst
            ),
        )


def open_table(clients_max: int, path: str | None) -> ClientTable:
    """The table in that file, shared with whoever opens it too; one's own if that cannot be."""
    if path is None:
        return ClientTable(clients_max)
    try:
        return ClientTable(clients_max, path)
    except (OSError, ValueError) as error:
        logger.warning(
            "Clients are counted by this process alone: %s: %s.",
            path,
            error,
            extra={"action": "clients_not_shared"},
        )
        return ClientTable(clients_max)
