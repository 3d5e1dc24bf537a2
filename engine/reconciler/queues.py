"""Checks what waits, and the money: streams, outbox, inbox, dead letters, payments."""

from collections.abc import Sequence
from typing import Any, Final

from engine.connections import redis_errors
from engine.core import Engine
from engine.keys import shard_keys
from engine.reconciler.finding import Evidence
from engine.store.database import Connection
from engine.store.evidence import (
    dead_letters,
    inbox_figures,
    money_figures,
    payment_problems,
    queue_figures,
)

ENTRY_SECONDS_MAX: Final = 60.0  # A stream entry's age: above the take-over of a dead worker's.
MESSAGE_SECONDS_MAX: Final = 60.0  # How late an outbox message may be taken.
OVERDUE_SECONDS_MAX: Final = 90.0  # The reaper's grace for open payments, and a minute.
WEBHOOK_SECONDS_MAX: Final = 60.0  # From its receipt to its effect.
REFUND_SECONDS_MAX: Final = 60.0  # Since it was decided, without a message that carries it out.
SEE_LETTERS: Final = "see `doorbuster letters list`"


async def check_queues(engine: Engine, connection: Connection, sale_ids: Sequence[str]) -> Evidence:
    """Invariants 7 and 9, and of 8 what became a dead letter. Cheap; may be repeated."""
    evidence = Evidence()
    await _check_inbox(connection, evidence)
    await _check_outbox(engine, connection, sale_ids, evidence)
    for sale_id in sale_ids:
        await _check_stream(engine, sale_id, evidence)
    dead = await dead_letters(connection, "stream", sale_ids)
    evidence.count(8, "stream entries given up", dead)
    if dead:
        evidence.blame(8, f"{dead} stream entries never became orders: {SEE_LETTERS}", times=dead)
    return evidence


async def check_money(connection: Connection, sale_ids: Sequence[str]) -> Evidence:
    """Invariant 6, of one snapshot."""
    evidence = Evidence()
    figures = await money_figures(connection, sale_ids)
    evidence.count(6, "paid orders", figures["paid"])
    evidence.count(6, "captured payments", figures["captured"])
    for row in await payment_problems(connection, sale_ids, REFUND_SECONDS_MAX):
        evidence.blame(
            6, f"{row['count']:,} {row['problem']}, as {row['example']}", times=row["count"]
        )
    return evidence


async def _check_inbox(connection: Connection, evidence: Evidence) -> None:
    inbox = await inbox_figures(connection)
    evidence.count(7, "webhooks", inbox["webhooks"])
    evidence.count(7, "waiting", inbox["waiting"])
    if inbox["oldest_seconds"] > WEBHOOK_SECONDS_MAX:
        evidence.blame(7, f"one waits for {inbox['oldest_seconds']} s")
    if inbox["dead"]:
        evidence.blame(7, f"{inbox['dead']} were given up: {SEE_LETTERS}", times=inbox["dead"])


async def _check_outbox(
    engine: Engine, connection: Connection, sale_ids: Sequence[str], evidence: Evidence
) -> None:
    figures = await queue_figures(connection, sale_ids, engine.clock.now_ms())
    evidence.count(9, "outbox messages", figures["messages"])
    if figures["late_seconds"] > MESSAGE_SECONDS_MAX:
        evidence.blame(9, f"an outbox message is {figures['late_seconds']} s late")
    if figures["overdue_seconds"] > OVERDUE_SECONDS_MAX:
        evidence.blame(9, f"an unpaid order is {figures['overdue_seconds']} s overdue")
    if dead := await dead_letters(connection, "outbox", sale_ids):
        evidence.blame(9, f"{dead} outbox messages were given up: {SEE_LETTERS}", times=dead)


async def _check_stream(engine: Engine, sale_id: str, evidence: Evidence) -> None:
    # redis-py types its answers as unions of everything they could be.
    redis: Any = engine.redis
    orders = shard_keys(sale_id).orders
    with redis_errors():
        entries = await redis.xlen(orders)
        oldest = await redis.xrange(orders, count=1)
        seconds, microseconds = await redis.time()
    evidence.count(9, "stream entries", entries)
    if oldest:
        entered_ms = int(oldest[0][0].split(b"-")[0])
        age = seconds + microseconds / 1_000_000 - entered_ms / 1000
        if age > ENTRY_SECONDS_MAX:
            evidence.blame(9, f"{sale_id}: a stream entry waits for {age:.0f} s")
