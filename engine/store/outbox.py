"""Takes, finishes, repeats and buries outbox messages. Knows nothing of what they ask for.

A message is leased: due again later, unless its taker finished it. So a taker that dies loses
nothing, and none holds a lock while it works.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Final

import msgspec

from engine import metrics
from engine.store.database import Connection

logger = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 20  # Then the dead letters.
RETRY_SECONDS: Final = 0.1  # Doubles with every attempt …
RETRY_SECONDS_MAX: Final = 30.0  # … up to here, for what failed,
POSTPONE_SECONDS_MAX: Final = 3.0  # and up to here, for what waits for a server to come back.
# They change stock in Redis, which refuses that while the sale is fenced.
NEED_STOCK: Final = ("confirm", "release", "restock", "late_capture")


class Message(msgspec.Struct, frozen=True):
    """Work that must happen because a transaction happened. See `outbox` in 0001_engine.sql."""

    message_id: int
    kind: str
    sale_id: str
    reference: str
    user_id: str | None
    reason: str | None
    attempts: int  # this one included


async def take(
    connection: Connection,
    kinds: Sequence[str],
    *,
    count: int,
    lease_seconds: float,
    cut_off: Sequence[str] = (),
) -> list[Message]:
    """Leases the oldest due messages; passed over are those of other takers, those that need the
    stock of a fenced sale, and those on payments of providers that are cut off, so that they hold
    nobody else's up.
    """
    statement = _take_statement(tuple(kinds), some_cut_off=bool(cut_off))
    parameters = (count, lease_seconds, *([list(cut_off)] if cut_off else []))
    rows = await connection.fetch(statement, *parameters)
    return [Message(*row) for row in sorted(rows, key=itemgetter("message_id"))]


@cache
def _take_statement(kinds: tuple[str, ...], *, some_cut_off: bool = False) -> str:
    """The kinds are words of the program's own, written out: a parameter would hide from the planner
    that a partial index fits. An array and not IN: for a table that was empty when last analysed the
    planner would join, and run the inner select anew for every row, 30 s long. NOT IN (SELECT …) and
    not <> ALL (ARRAY(…)): of an array it expects that next to nothing is left, and sorts the table.
    A payment's provider is a value and not an EXISTS: looked up by key, never joined.
    """
    assert all(kind.replace("_", "").isalpha() for kind in kinds), kinds
    words = ", ".join(f"'{kind}'" for kind in kinds)
    need_stock = ", ".join(f"'{kind}'" for kind in NEED_STOCK)
    of_others = """
              AND (kind = 'late_capture' OR coalesce(
                  (SELECT provider FROM payments WHERE payment_id = reference), '') <> ALL ($3::text[]))
        """
    return f"""
        UPDATE outbox
        SET due_at = now() + make_interval(secs => $2), attempts = attempts + 1
        WHERE message_id = ANY (ARRAY(
            SELECT message_id FROM outbox
            WHERE kind IN ({words}) AND due_at <= now()
              AND (kind NOT IN ({need_stock})
                   OR sale_id NOT IN (SELECT sale_id FROM sales WHERE fenced IS NOT NULL))
              {of_others if some_cut_off else ""}
            ORDER BY message_id LIMIT $1 FOR UPDATE SKIP LOCKED
        ))
        RETURNING message_id, kind, sale_id, reference, user_id, reason, attempts
        """  # noqa: S608


async def put(connection: Connection, kind: str, references: Iterable[tuple[str, str]]) -> None:
    """Adds messages for (sale_id, reference)."""
    pairs = list(references)
    if pairs:
        await connection.execute(
            "INSERT INTO outbox (kind, sale_id, reference) "
            "SELECT $1, * FROM unnest($2::text[], $3::text[])",
            kind,
            [sale_id for sale_id, _ in pairs],
            [reference for _, reference in pairs],
        )


async def is_waiting(connection: Connection, kind: str, sale_id: str, reference: str) -> bool:
    """Whether such a message is there, be it leased."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM outbox WHERE (kind, sale_id, reference) = ($1, $2, $3))",
            kind,
            sale_id,
            reference,
        )
    )


async def finish(connection: Connection, messages: Iterable[Message]) -> None:
    """Removes what is done."""
    ids = [message.message_id for message in messages]
    if ids:
        await connection.execute("DELETE FROM outbox WHERE message_id = ANY ($1::bigint[])", ids)


async def postpone(
    connection: Connection,
    messages: Iterable[Message],
    error: str,
    seconds_max: float = POSTPONE_SECONDS_MAX,
) -> None:
    """Repeats soon. For what is nobody's fault: a server is away, a sale is fenced.

    However long that lasts, it never makes a dead letter: two attempts are always left.
    """
    await _repeat(connection, messages, error, ATTEMPTS_MAX - 2, seconds_max)


async def fail(connection: Connection, messages: Iterable[Message], error: str) -> None:
    """Repeats later; after ATTEMPTS_MAX attempts it becomes a dead letter, an alarm and a log line."""
    failed = list(messages)
    again = [message for message in failed if message.attempts < ATTEMPTS_MAX]
    hopeless = [message for message in failed if message.attempts >= ATTEMPTS_MAX]
    await _repeat(connection, again, error, ATTEMPTS_MAX, RETRY_SECONDS_MAX)
    for message in hopeless:
        await bury(
            connection,
            source="outbox",
            sale_id=message.sale_id,
            reference=str(message.message_id),
            body=msgspec.json.encode(message),
            error=error,
        )
    await finish(connection, hopeless)


async def bury(
    connection: Connection,
    *,
    source: str,
    sale_id: str | None,
    reference: str,
    body: bytes,
    error: str,
) -> None:
    """Writes a dead letter, counts it and says so."""
    await connection.execute(
        """
        INSERT INTO dead_letters (source, sale_id, reference, body, error)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING
        """,
        source,
        sale_id,
        reference,
        body,
        error[:2000],
    )
    metrics.dead_letters.labels(source).inc()
    logger.error(
        "%s message %s went to the dead letters: %s",
        source.capitalize(),
        reference,
        error,
        extra={"action": "message_buried"},
    )


async def put_release(
    connection: Connection, order: tuple[str, str], user_id: str, reason: str
) -> None:
    """Asks Redis to give one reservation's units back."""
    await connection.execute(
        """
        INSERT INTO outbox (kind, sale_id, reference, user_id, reason)
        VALUES ('release', $1, $2, $3, $4)
        """,
        *order,
        user_id,
        reason,
    )


async def _repeat(
    connection: Connection,
    messages: Iterable[Message],
    error: str,
    attempts_max: int,
    seconds_max: float,
) -> None:
    ids = [message.message_id for message in messages]
    if ids:
        await connection.execute(
            """
            UPDATE outbox
            SET attempts = least(attempts, $3), last_error = $2,
                due_at = now() + make_interval(secs => least($4 * 2 ^ least(attempts, 20), $5))
            WHERE message_id = ANY ($1::bigint[])
            """,
            ids,
            error[:500],
            attempts_max,
            RETRY_SECONDS,
            seconds_max,
        )
