"""Keeps subscriptions and deliveries in Postgres. Calls nobody."""

from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias

import msgspec

from engine.store.database import Connection

Row: TypeAlias = Any
SubscriptionState = Literal["active", "paused", "gone"]
DeliveryState = Literal["waiting", "delivered", "dead"]

OLD_SECRET_SECONDS: Final = 86_400  # So long a receiver has to learn its new secret.
REPLAYED_MAX: Final = 100_000  # Events of one replay; a longer time is replayed in parts.

_HERE: Final = files("api.subscriptions")
_FAN_OUT: Final = (_HERE / "fan_out.sql").read_text()
_TAKE: Final = (_HERE / "take.sql").read_text()
_REPLAY: Final = (_HERE / "replay.sql").read_text()
_SHOWN: Final = "subscription_id, url, description, types, state, created_at"
_DELIVERY: Final = """
    SELECT delivery_id, subscription_id, event_id, type, deliveries.state, attempts, due_at,
           last_status, last_error, delivered_at, at
    FROM deliveries JOIN events USING (event_id)
"""


class Subscription(msgspec.Struct, frozen=True):
    """Who is told of what, without the secret."""

    subscription_id: str
    url: str
    description: str
    types: list[str]
    state: SubscriptionState
    created_at: datetime


class Delivery(msgspec.Struct, frozen=True):
    """One event for one subscription, and how far that got."""

    delivery_id: int
    subscription_id: str
    event_id: int
    type: str
    state: DeliveryState
    attempts: int
    due_at: datetime
    last_status: int | None
    last_error: str | None
    delivered_at: datetime | None
    at: datetime  # when it happened


async def add_subscription(
    connection: Connection,
    subscription_id: str,
    *,
    url: str,
    description: str,
    types: Sequence[str],
    secret: str,
) -> Subscription:
    row = await connection.fetchrow(
        f"""
        INSERT INTO subscriptions (subscription_id, url, description, types, secret)
        VALUES ($1, $2, $3, $4, $5) RETURNING {_SHOWN}
        """,  # noqa: S608
        subscription_id,
        url,
        description,
        list(types),
        secret,
    )
    return Subscription(**row)


async def list_subscriptions(connection: Connection, rows_max: int) -> list[Subscription]:
    """Oldest first."""
    rows = await connection.fetch(
        f"SELECT {_SHOWN} FROM subscriptions ORDER BY created_at, subscription_id LIMIT $1",  # noqa: S608
        rows_max,
    )
    return [Subscription(**row) for row in rows]


async def find_subscription(connection: Connection, subscription_id: str) -> Subscription | None:
    row = await connection.fetchrow(
        f"SELECT {_SHOWN} FROM subscriptions WHERE subscription_id = $1",  # noqa: S608
        subscription_id,
    )
    return Subscription(**row) if row else None


async def change_subscription(
    connection: Connection,
    subscription_id: str,
    *,
    url: str | None,
    description: str | None,
    types: Sequence[str] | None,
    state: str | None,
) -> Subscription | None:
    """What is None stays. None if there is no such subscription."""
    row = await connection.fetchrow(
        f"""
        UPDATE subscriptions SET url = coalesce($2, url), description = coalesce($3, description),
            types = coalesce($4, types), state = coalesce($5, state)
        WHERE subscription_id = $1 RETURNING {_SHOWN}
        """,  # noqa: S608
        subscription_id,
        url,
        description,
        None if types is None else list(types),
        state,
    )
    return Subscription(**row) if row else None


async def remove_subscription(connection: Connection, subscription_id: str) -> None:
    """With its deliveries."""
    await connection.execute(
        "DELETE FROM subscriptions WHERE subscription_id = $1", subscription_id
    )


async def change_secret(connection: Connection, subscription_id: str, secret: str) -> bool:
    """The old one is signed with, too, for a while. False if there is no such subscription."""
    return bool(
        await connection.fetchval(
            """
            UPDATE subscriptions SET old_secret = secret, secret = $2,
                old_secret_until = now() + make_interval(secs => $3)
            WHERE subscription_id = $1 RETURNING true
            """,
            subscription_id,
            secret,
            OLD_SECRET_SECONDS,
        )
    )


async def list_deliveries(
    connection: Connection,
    subscription_id: str,
    state: str | None,
    before: int | None,
    rows_max: int,
) -> list[Delivery]:
    """Newest first, from the one below `before` on."""
    rows = await connection.fetch(
        f"""
        {_DELIVERY}
        WHERE subscription_id = $1 AND ($2::text IS NULL OR deliveries.state = $2)
          AND ($3::bigint IS NULL OR delivery_id < $3)
        ORDER BY delivery_id DESC LIMIT $4
        """,
        subscription_id,
        state,
        before,
        rows_max,
    )
    return [Delivery(**row) for row in rows]


async def find_delivery(connection: Connection, delivery_id: int) -> Delivery | None:
    row = await connection.fetchrow(f"{_DELIVERY} WHERE delivery_id = $1", delivery_id)
    return Delivery(**row) if row else None


async def deliver_again(connection: Connection, delivery_id: int) -> None:
    """At once, with all attempts before it."""
    await connection.execute(
        "UPDATE deliveries SET state = 'waiting', attempts = 0, due_at = now(), delivered_at = NULL"
        " WHERE delivery_id = $1",
        delivery_id,
    )


async def replay(
    connection: Connection, subscription_id: str, since: datetime, until: datetime
) -> int:
    """Puts the events of that time up for delivery again; how many, at most REPLAYED_MAX."""
    return int(await connection.fetchval(_REPLAY, subscription_id, since, until, REPLAYED_MAX))


async def fan_out(connection: Connection, events_max: int) -> tuple[int, float]:
    """(how many events it made deliveries of, how many seconds the oldest of all had waited)."""
    row = await connection.fetchrow(_FAN_OUT, events_max)
    return row["taken"], row["waited_seconds"]


async def take_due(
    connection: Connection,
    *,
    each_max: int,
    receivers_max: int,
    busy: Sequence[str],
    lease_seconds: float,
) -> list[Row]:
    """Leases what is due, by receiver, without those that are `busy`; see take.sql for the columns."""
    rows: list[Row] = await connection.fetch(
        _TAKE, each_max, receivers_max, list(busy), lease_seconds
    )
    return rows


async def finish(
    connection: Connection,
    delivery_id: int,
    state: DeliveryState,
    *,
    status: int | None,
    error: str | None,
    again_in_seconds: float = 0.0,
) -> None:
    """Writes down what became of an attempt."""
    await connection.execute(
        """
        UPDATE deliveries SET state = $2, last_status = $3, last_error = $4,
            due_at = now() + make_interval(secs => $5),
            delivered_at = CASE WHEN $2 = 'delivered' THEN now() END
        WHERE delivery_id = $1
        """,
        delivery_id,
        state,
        status,
        error,
        again_in_seconds,
    )
