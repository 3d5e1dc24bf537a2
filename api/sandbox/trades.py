"""What the gateways remember: trades by the merchant's number and by their own. One SQLite file.

Decides what may follow what in a trade's life. Tells nobody of it.
"""

import sqlite3
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS trades (
    gateway TEXT NOT NULL,
    ref     TEXT NOT NULL,
    body    BLOB NOT NULL,
    PRIMARY KEY (gateway, ref)
) WITHOUT ROWID
"""


class TradeState(StrEnum):
    """The life of a trade."""

    OPEN = "open"  # Nobody paid yet.
    AUTHORIZED = "authorized"
    PAID = "paid"
    CLOSED = "closed"
    REFUNDED = "refunded"


class Trade(msgspec.Struct):
    """One order of a merchant."""

    number: str  # the merchant's
    ref: str  # the gateway's
    amount_minor: int
    currency: str
    created_ms: int
    notify_url: str
    description: str = ""
    expires_ms: int | None = None
    return_url: str | None = None
    holds: bool = False  # Paying authorizes; the merchant captures.
    state: TradeState = TradeState.OPEN
    paid_ms: int | None = None
    refunded_ms: int | None = None  # when the refund is done, which may be later than now
    declines: int = 0

    def state_at(self, now_ms: int) -> TradeState:
        """What time makes of it: nobody pays after the deadline, and refunds take theirs."""
        if self.state is TradeState.OPEN and self.expires_ms is not None:
            return TradeState.CLOSED if now_ms >= self.expires_ms else self.state
        if self.refunded_ms is not None and now_ms >= self.refunded_ms:
            return TradeState.REFUNDED
        return self.state

    def is_refund_under_way(self, now_ms: int) -> bool:
        return self.refunded_ms is not None and now_ms < self.refunded_ms


class TradeBook:
    """All trades of all gateways. In memory; written through to a file, if there is one."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(SCHEMA)
        self._trades: dict[tuple[str, str], Trade] = {}  # by number and by ref
        for gateway, body in self._connection.execute("SELECT gateway, body FROM trades"):
            self._keep(gateway, msgspec.json.decode(body, type=Trade))

    def find(self, gateway: str, name: str) -> Trade | None:
        """By the merchant's number or the gateway's."""
        return self._trades.get((gateway, name))

    def of(self, gateway: str) -> Iterator[Trade]:
        """Each once, oldest first."""
        mine = {id(trade): trade for (name, _), trade in self._trades.items() if name == gateway}
        return iter(sorted(mine.values(), key=lambda trade: trade.created_ms))

    def save(self, gateway: str, trade: Trade) -> None:
        """Adds it, or what became of it."""
        self._connection.execute(
            "INSERT OR REPLACE INTO trades VALUES (?, ?, ?)",
            (gateway, trade.ref, msgspec.json.encode(trade)),
        )
        self._keep(gateway, trade)

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()

    def _keep(self, gateway: str, trade: Trade) -> None:
        self._trades[gateway, trade.number] = self._trades[gateway, trade.ref] = trade
