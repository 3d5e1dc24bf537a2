"""Compares every buyer's record in Redis with the orders in Postgres.

Copies the records into a temporary table and lets Postgres join; what does not match is looked at
again, alone, until it settles.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from engine.connections import redis_errors
from engine.core import Engine
from engine.inventory.inventory import Counters
from engine.keys import shard_keys
from engine.model import items_from_text
from engine.progress import Progress
from engine.reconciler.finding import Evidence
from engine.sales import Sale
from engine.store.database import Connection
from engine.store.matching import (
    Suspect,
    copy_seen,
    copy_streamed,
    create_tables,
    drop_tables,
    find_suspects,
)

USERS_PER_SCAN: Final = 5000  # Some milliseconds of Redis' time at once.
ENTRIES_PER_READ: Final = 100  # Up to 512 reservations each.
SUSPECTS_MAX: Final = 200_000  # Looked at again; where there are more, the scan is repeated.
SCANS_MAX: Final = 3
WISHES_CACHED_MAX: Final = 10_000  # Distinct carts whose meaning is remembered.

USER = re.compile(rb"[!-~]{1,128}")
LINE = re.compile(rb"([A-Za-z0-9_-]{20})([rcxe])[0-9]{10}([!-~]+)")  # See reserve.lua.
ENTRY_LINE = re.compile(rb"^([A-Za-z0-9_-]{20}) ", re.MULTILINE)

Wait = Callable[[], Awaitable[bool]]


class RecordCheck:
    """One comparison of one sale: invariants 3, 4, 5 and 8, and that records add up to counters."""

    def __init__(
        self, engine: Engine, connection: Connection, sale: Sale, progress: Progress
    ) -> None:
        self._engine = engine
        # redis-py types its answers as unions of everything they could be.
        self._redis: Any = engine.redis
        self._connection = connection
        self._sale = sale
        self._keys = shard_keys(sale.sale_id)
        self._progress = progress
        self._wishes: dict[bytes, tuple[bytes, int]] = {}

    async def run(self, wait: Wait) -> Evidence:
        """Scans, joins, and looks again at what does not match while `wait` says there is time."""
        await create_tables(self._connection)
        try:
            for _ in range(SCANS_MAX):
                scan = _Scan(self._sale)
                since_ms = self._engine.clock.now_ms()
                await self._scan(scan)
                found = await self._find(since_ms, None)
                left = await self._settle(found, wait)
                complete = len(found) < SUSPECTS_MAX and scan.adds_up
                if left or complete or not await wait():
                    break
            return scan.evidence_with(left, complete=bool(left) or len(found) < SUSPECTS_MAX)
        finally:
            await drop_tables(self._connection)

    async def _scan(self, scan: "_Scan") -> None:
        """Copies all records, then what is in the stream. The orders are read after both.

        In that order nothing on its way is missed: it is seen in the stream or has become an order.
        """
        before = await self._engine.inventory.snapshot(self._sale.sale_id)
        await copy_seen(self._connection, self._all_records(scan))
        after = await self._engine.inventory.snapshot(self._sale.sale_id)
        with redis_errors():
            buyers = await self._redis.hlen(self._keys.buyers)
        if before == after and buyers == scan.buyers:
            scan.compare(after.stock)
        await copy_streamed(self._connection, self._stream_ids(scan))

    async def _find(self, since_ms: int | None, only: list[str] | None) -> list[Suspect]:
        return await find_suspects(
            self._connection, self._sale.sale_id, since_ms, only, rows_max=SUSPECTS_MAX
        )

    async def _settle(self, suspects: list[Suspect], wait: Wait) -> list[Suspect]:
        """Reads the records anew, now later than the orders, until nothing is left or time is up."""
        while suspects:
            users = list({suspect.user_id.encode() for suspect in suspects})
            await copy_seen(self._connection, self._records_of(users))
            suspects = await self._find(None, [s.reservation_id for s in suspects])
            if suspects and not await wait():
                break
        return suspects

    async def _all_records(self, scan: "_Scan") -> AsyncIterator[bytes]:
        cursor = 0
        while True:
            with redis_errors():
                cursor, records = await self._redis.hscan(
                    self._keys.buyers, cursor, count=USERS_PER_SCAN
                )
            yield self._rows(records.items(), scan)
            self._progress(f"{self._sale.sale_id}: read buyers", scan.buyers, None)
            if cursor == 0:
                return

    async def _records_of(self, users: list[bytes]) -> AsyncIterator[bytes]:
        scan = _Scan(self._sale)  # What it notes was noted by the full scan.
        for start in range(0, len(users), USERS_PER_SCAN):
            chunk = users[start : start + USERS_PER_SCAN]
            with redis_errors():
                records = await self._redis.hmget(self._keys.buyers, chunk)
            found = zip(chunk, records, strict=True)
            yield self._rows(((u, record) for u, record in found if record), scan)

    async def _stream_ids(self, scan: "_Scan") -> AsyncIterator[bytes]:
        after = "-"
        while True:
            with redis_errors():
                entries = await self._redis.xrange(
                    self._keys.orders, min=after, count=ENTRIES_PER_READ
                )
            if not entries:
                return
            ids = [
                i for _, fields in entries for i in ENTRY_LINE.findall(fields.get(b"batch", b""))
            ]
            scan.evidence.count(3, "in the stream", len(ids))
            yield b"".join(b"%b\n" % reservation_id for reservation_id in ids)
            after = f"({entries[-1][0].decode()}"

    def _rows(self, records: Iterable[tuple[bytes, bytes]], scan: "_Scan") -> bytes:
        """Records as lines of COPY: user, reservation, state, items."""
        rows: list[bytes] = []
        for user, record in records:
            scan.buyers += 1
            lines = record.split(b"\n")
            units = 0
            for line in lines:
                match = LINE.fullmatch(line)
                wish = self._wish(match[3]) if match else None
                if match is None or wish is None or not USER.fullmatch(user):
                    scan.evidence.blame(3, f"{self._sale.sale_id}: an unreadable record")
                    continue
                reservation_id, state, text = match.groups()
                scan.tally[state, text] += 1
                if state in b"rc":
                    units += wish[1]
                rows.append(
                    b"%b\t%b\t%b\t%b\n"
                    % (user.replace(b"\\", b"\\\\"), reservation_id, state, wish[0])
                )
            scan.check_buyer(lines, units)
        return b"".join(rows)

    def _wish(self, text: bytes) -> tuple[bytes, int] | None:
        """(items as JSON, units in all) of an items text; None if it makes no sense."""
        wish = self._wishes.get(text)
        if wish is None:
            try:
                items = items_from_text(text.decode())
            except ValueError:
                return None
            quantities = {item.sku: item.quantity for item in items}
            wish = (msgspec.json.encode(quantities), sum(quantities.values()))
            if len(self._wishes) < WISHES_CACHED_MAX:
                self._wishes[text] = wish
        return wish


class _Scan:
    """What one pass over the records counts and notes."""

    def __init__(self, sale: Sale) -> None:
        self._sale = sale
        self.evidence = Evidence()
        self.buyers = 0
        self.tally: Counter[tuple[bytes, bytes]] = Counter()  # reservations by (state, items)
        self.adds_up = True

    def check_buyer(self, lines: list[bytes], units: int) -> None:
        if units > self._sale.per_user_max:
            self.evidence.blame(
                4, f"{self._sale.sale_id}: a buyer holds {units} of {self._sale.per_user_max} units"
            )
        if len(lines) > 1 and len({line[:20] for line in lines}) < len(lines):
            self.evidence.blame(5, f"{self._sale.sale_id}: a buyer has one reservation twice")

    def compare(self, stock: dict[str, Counters]) -> None:
        """Holds the sums of the records against the counters of the same quiet moment."""
        held: Counter[tuple[str, str]] = Counter()
        for (state, text), reservations in self.tally.items():
            for item in items_from_text(text.decode()):
                held[state.decode(), item.sku] += reservations * item.quantity
        for sku, counters in stock.items():
            self._compare(sku, "reserved", counters.reserved, held["r", sku])
            self._compare(sku, "sold", counters.sold, held["c", sku])

    def _compare(self, sku: str, name: str, units: int, in_records: int) -> None:
        if units != in_records:
            self.adds_up = False
            self.evidence.blame(
                2,
                f"{self._sale.sale_id}/{sku}: Redis counts {units} {name}, "
                f"its records {in_records}",
            )

    def evidence_with(self, suspects: list[Suspect], *, complete: bool) -> Evidence:
        """All that was noted, the reservations that never settled included."""
        reservations = self.tally.total()
        self.evidence.count(3, "reservations", reservations)
        self.evidence.count(4, "buyers", self.buyers)
        self.evidence.count(5, "records compared with their orders", reservations)
        for suspect in suspects:
            self.evidence.blame(
                suspect.invariant,
                f"{self._sale.sale_id}.{suspect.reservation_id} {suspect.problem}",
            )
        if not complete:
            self.evidence.blame(3, f"{self._sale.sale_id}: too much in motion to compare")
        return self.evidence
