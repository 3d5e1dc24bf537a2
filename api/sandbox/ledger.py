"""The gateway's memory: charges and webhooks to deliver, in one SQLite file.

Many callers share one commit. A kill loses nothing that was answered.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from api.sandbox.scenarios import Notice, Plan
from engine.inventory import Batcher
from engine.payment.provider import ChargeStatus, LineKind, StatementLine
from engine.payment.sandbox import SandboxCharge, SandboxEvent

COMMIT_MAX: Final = 256  # Calls per commit.
WAITING_MAX: Final = 10_000  # Calls waiting for one; beyond it 503.

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS charges (
    payment_id   TEXT PRIMARY KEY,
    charge_id    TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    currency     TEXT NOT NULL,
    outcome      TEXT NOT NULL,
    told         TEXT NOT NULL,    -- the answer to its creation, also when that is repeated
    settles_ms   INTEGER NOT NULL, -- pending until then
    refunded     INTEGER NOT NULL DEFAULT 0  -- when, in milliseconds; 0: it was not
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
    number   INTEGER PRIMARY KEY,
    body     BLOB NOT NULL,
    due_ms   INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (due_ms);
"""


class Mismatch(Exception):
    """The payment id was used for another amount."""


class NotCaptured(Exception):
    """Only a captured charge can be refunded."""


class Delivery(NamedTuple):
    """A webhook on its way."""

    number: int
    body: bytes
    attempts: int


Operation = Callable[[sqlite3.Connection], Any]


class ChargeLedger:
    """Every method is one step in the shared commit."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # WAL outlives a kill of this process; only a power cut could take the last commits.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(SCHEMA)
        self._batcher = Batcher[Operation, Any](
            self._commit, batch_max=COMMIT_MAX, queue_max=WAITING_MAX
        )

    async def create(
        self, charge: SandboxCharge, plan: Plan, now_ms: int
    ) -> tuple[SandboxCharge, bool]:
        """(the charge as it is told, whether it is new). Raises Mismatch."""
        answer: tuple[SandboxCharge, bool] = await self._run(
            lambda connection: _create(connection, charge, plan, now_ms)
        )
        return answer

    async def find(self, payment_id: str, now_ms: int) -> SandboxCharge | None:
        """The charge as it is now."""
        charge: SandboxCharge | None = await self._run(
            lambda connection: _find(connection, payment_id, now_ms)
        )
        return charge

    async def refund(self, payment_id: str, now_ms: int) -> SandboxCharge | None:
        """The charge, refunded once however often it is asked. Raises NotCaptured."""
        charge: SandboxCharge | None = await self._run(
            lambda connection: _refund(connection, payment_id, now_ms)
        )
        return charge

    async def statement(self, begin_ms: int, end_ms: int) -> list[StatementLine]:
        """What was captured and what was refunded from a moment to another."""
        lines: list[StatementLine] = await self._run(
            lambda connection: _statement(connection, begin_ms, end_ms)
        )
        return lines

    async def due(self, now_ms: int, count: int) -> list[Delivery]:
        """The webhooks that are due, oldest first."""
        rows = await self._run(
            lambda connection: connection.execute(
                "SELECT number, body, attempts FROM deliveries WHERE due_ms <= ? "
                "ORDER BY due_ms, number LIMIT ?",
                (now_ms, count),
            ).fetchall()
        )
        return [Delivery(*row) for row in rows]

    async def report(self, delivered: Sequence[int], postponed: Sequence[tuple[int, int]]) -> None:
        """Forgets what was delivered; (due_ms, number) of the others comes again."""

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM deliveries WHERE number = ?", [(number,) for number in delivered]
            )
            connection.executemany(
                "UPDATE deliveries SET due_ms = ?, attempts = attempts + 1 WHERE number = ?",
                postponed,
            )

        await self._run(write)

    async def close(self) -> None:
        """Finishes what was accepted. Idempotent."""
        await self._batcher.stop()
        self._connection.close()

    async def _run(self, operation: Operation) -> Any:
        answer = await self._batcher.submit(operation)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _commit(self, operations: Sequence[Operation]) -> list[Any]:
        return await asyncio.to_thread(self._commit_now, operations)

    def _commit_now(self, operations: Sequence[Operation]) -> list[Any]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            answers = [_attempt(operation, self._connection) for operation in operations]
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return answers


def _attempt(operation: Operation, connection: sqlite3.Connection) -> Any:
    """A refusal is its own caller's only; nothing was written for it."""
    try:
        return operation(connection)
    except (Mismatch, NotCaptured) as refusal:
        return refusal


def _create(
    connection: sqlite3.Connection, charge: SandboxCharge, plan: Plan, now_ms: int
) -> tuple[SandboxCharge, bool]:
    row = connection.execute(
        "INSERT INTO charges (payment_id, charge_id, amount_minor, currency, outcome, told, settles_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1",
        (
            charge.payment_id,
            charge.charge_id,
            charge.amount_minor,
            charge.currency,
            plan.outcome.value,
            plan.told.value,
            now_ms + plan.settles_after_ms,
        ),
    ).fetchone()
    if row is not None:
        for notice in plan.notices:
            _announce(connection, charge, notice, now_ms)
        return msgspec.structs.replace(charge, status=plan.told), True
    kept, told = _row(connection, charge.payment_id, now_ms)
    if (kept.amount_minor, kept.currency) != (charge.amount_minor, charge.currency):
        raise Mismatch
    return msgspec.structs.replace(kept, status=ChargeStatus(told)), False


def _find(connection: sqlite3.Connection, payment_id: str, now_ms: int) -> SandboxCharge | None:
    try:
        return _row(connection, payment_id, now_ms)[0]
    except LookupError:
        return None


def _refund(connection: sqlite3.Connection, payment_id: str, now_ms: int) -> SandboxCharge | None:
    charge = _find(connection, payment_id, now_ms)
    if charge is None or charge.status is ChargeStatus.REFUNDED:
        return charge
    if charge.status is not ChargeStatus.CAPTURED:
        raise NotCaptured
    connection.execute("UPDATE charges SET refunded = ? WHERE payment_id = ?", (now_ms, payment_id))
    refunded = msgspec.structs.replace(charge, status=ChargeStatus.REFUNDED)
    _announce(connection, refunded, Notice(9, ChargeStatus.REFUNDED, 0), now_ms)
    return refunded


def _statement(connection: sqlite3.Connection, begin_ms: int, end_ms: int) -> list[StatementLine]:
    rows = connection.execute(
        "SELECT 'payment', payment_id, charge_id, amount_minor, currency FROM charges "
        "WHERE outcome = 'captured' AND settles_ms >= ?1 AND settles_ms < ?2 UNION ALL "
        "SELECT 'refund', payment_id, charge_id, amount_minor, currency FROM charges "
        "WHERE refunded >= ?1 AND refunded < ?2",
        (begin_ms, end_ms),
    )
    return [StatementLine(LineKind(kind), *rest) for kind, *rest in rows]


def _row(connection: sqlite3.Connection, payment_id: str, now_ms: int) -> tuple[SandboxCharge, str]:
    """(the charge as it is now, what its creation was told)."""
    row = connection.execute(
        "SELECT charge_id, amount_minor, currency, outcome, told, settles_ms, refunded "
        "FROM charges WHERE payment_id = ?",
        (payment_id,),
    ).fetchone()
    if row is None:
        raise LookupError(payment_id)
    charge_id, amount_minor, currency, outcome, told, settles_ms, refunded = row
    status = ChargeStatus(outcome) if settles_ms <= now_ms else ChargeStatus.PENDING
    if refunded:
        status = ChargeStatus.REFUNDED
    detail = "declined" if status is ChargeStatus.FAILED else None
    return SandboxCharge(payment_id, charge_id, status, amount_minor, currency, detail), told


def _announce(
    connection: sqlite3.Connection, charge: SandboxCharge, notice: Notice, now_ms: int
) -> None:
    told = msgspec.structs.replace(charge, status=notice.status)
    event = SandboxEvent(f"evt_{charge.charge_id}_{notice.number}", told)
    connection.execute(
        "INSERT INTO deliveries (body, due_ms) VALUES (?, ?)",
        (msgspec.json.encode(event), now_ms + notice.after_ms),
    )
