"""Keeps reviews, replies and votes in Postgres, where triggers keep their sums.

Leaves it to the handlers who may see and change what.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from engine.store.database import Connection

# A purchase that was paid for and was not undone.
_BOUGHT: Final = ("paid", "shipped", "delivered")
_COLUMNS: Final = """
    reviews.review_id, product_id, sku, user_id, sale_id, reservation_id, author, rating,
    reviews.body, images, language, state, state_reason, helpful, created_at, updated_at,
    review_replies.body AS reply, review_replies.at AS replied_at
    FROM reviews LEFT JOIN review_replies USING (review_id)
"""

Order = Literal["newest", "helpful"]


class Review(msgspec.Struct, frozen=True):
    """A review, as Postgres keeps it, with the shop's reply."""

    review_id: str
    product_id: str
    sku: str
    user_id: str
    sale_id: str
    reservation_id: str
    author: str
    rating: int
    body: str
    images: tuple[str, ...]
    language: str
    state: Literal["pending", "published", "rejected"]
    state_reason: str | None
    helpful: int
    created_at: datetime
    updated_at: datetime
    reply: str | None
    replied_at: datetime | None


class Purchase(NamedTuple):
    """The order that lets a user speak of a SKU."""

    product_id: str
    sale_id: str
    reservation_id: str
    author: str | None  # the user's name, if the shop knows it


class Ratings(msgspec.Struct, frozen=True):
    """The sums of a product's published reviews."""

    count: int
    sum: int
    stars: tuple[int, ...]


async def find_purchase(connection: Connection, user_id: str, sku: str) -> Purchase | None:
    """The newest order of the user's that has the SKU and was paid for."""
    row = await connection.fetchrow(
        """
        SELECT skus.product_id, sale_id, reservation_id,
               (SELECT name FROM users WHERE users.user_id = $1) AS author
        FROM orders, skus
        WHERE orders.user_id = $1 AND items ? $2 AND orders.status = ANY ($3) AND skus.sku = $2
        ORDER BY reserved_at DESC LIMIT 1
        """,
        user_id,
        sku,
        list(_BOUGHT),
    )
    return Purchase(*row) if row else None


async def add_review(  # noqa: PLR0917
    connection: Connection,
    review_id: str,
    user_id: str,
    sku: str,
    purchase: Purchase,
    author: str,
    rating: int,
    body: str,
    images: Sequence[str],
    language: str,
    state: str,
) -> bool:
    """False if the user has reviewed the SKU before."""
    added = await connection.fetchval(
        """
        INSERT INTO reviews (review_id, user_id, sku, product_id, sale_id, reservation_id, author,
                             rating, body, images, language, state)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        ON CONFLICT (user_id, sku) DO NOTHING RETURNING true
        """,
        review_id,
        user_id,
        sku,
        *purchase[:3],
        author,
        rating,
        body,
        list(images),
        language,
        state,
    )
    return bool(added)


async def find_review(connection: Connection, review_id: str) -> Review | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} WHERE reviews.review_id = $1",
        review_id,
    )
    return _review(row) if row else None


async def reviews_of_product(
    connection: Connection,
    product_id: str,
    *,
    order: Order,
    rating: int | None,
    after: tuple[Any, str] | None,
    rows_max: int,
) -> list[Review]:
    """Published ones: the newest or the most helpful first, from the one after `after` on."""
    key, kind = ("helpful", "integer") if order == "helpful" else ("created_at", "timestamptz")
    key_after, id_after = after or (None, "")
    rows = await connection.fetch(
        f"""
        SELECT {_COLUMNS}
        WHERE product_id = $1 AND state = 'published' AND ($2::smallint IS NULL OR rating = $2)
          AND ($3::{kind} IS NULL OR ({key}, reviews.review_id) < ($3, $4))
        ORDER BY {key} DESC, reviews.review_id DESC LIMIT $5
        """,
        product_id,
        rating,
        key_after,
        id_after,
        rows_max,
    )
    return [_review(row) for row in rows]


async def reviews_in(
    connection: Connection,
    *,
    state: str | None = None,
    user_id: str | None = None,
    after: tuple[datetime, str] | None = None,
    rows_max: int,
) -> list[Review]:
    """Of a state, of a user, or all: oldest first, for those who work a queue off."""
    at_after, id_after = after or (None, "")
    rows = await connection.fetch(
        f"""
        SELECT {_COLUMNS}
        WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR user_id = $2)
          AND ($3::timestamptz IS NULL OR (created_at, reviews.review_id) > ($3, $4))
        ORDER BY created_at, reviews.review_id LIMIT $5
        """,
        state,
        user_id,
        at_after,
        id_after,
        rows_max,
    )
    return [_review(row) for row in rows]


async def ratings_of(connection: Connection, product_id: str) -> Ratings | None:
    """None if there is no such product."""
    row = await connection.fetchrow(
        """
        SELECT coalesce(count, 0), coalesce(sum, 0), coalesce(stars, '{0,0,0,0,0}')
        FROM products LEFT JOIN product_ratings USING (product_id)
        WHERE product_id = $1 AND status = 'active'
        """,
        product_id,
    )
    return Ratings(row[0], row[1], tuple(row[2])) if row else None


async def change_review(
    connection: Connection,
    review_id: str,
    *,
    rating: int | None,
    body: str | None,
    images: Sequence[str] | None,
    state: str,
) -> None:
    """What is None stays. `state` is for a published one: what nobody has let through stays unseen."""
    await connection.execute(
        """
        UPDATE reviews SET rating = coalesce($2, rating), body = coalesce($3, body),
            images = coalesce($4, images), updated_at = now(),
            state = CASE WHEN state = 'published' THEN $5 ELSE 'pending' END
        WHERE review_id = $1
        """,
        review_id,
        rating,
        body,
        None if images is None else list(images),
        state,
    )


async def remove_review(connection: Connection, review_id: str) -> None:
    await connection.execute("DELETE FROM reviews WHERE review_id = $1", review_id)


async def moderate_review(
    connection: Connection, review_id: str, state: str, reason: str | None
) -> bool:
    """False if there is no such review."""
    return bool(
        await connection.fetchval(
            "UPDATE reviews SET state = $2, state_reason = $3 WHERE review_id = $1 RETURNING true",
            review_id,
            state,
            reason,
        )
    )


async def put_reply(connection: Connection, review_id: str, text: str) -> None:
    """The shop's one reply, new or changed."""
    await connection.execute(
        """
        INSERT INTO review_replies (review_id, body) VALUES ($1, $2)
        ON CONFLICT (review_id) DO UPDATE SET body = excluded.body, at = now()
        """,
        review_id,
        text,
    )


async def remove_reply(connection: Connection, review_id: str) -> None:
    await connection.execute("DELETE FROM review_replies WHERE review_id = $1", review_id)


async def vote(connection: Connection, review_id: str, user_id: str) -> None:
    """Once per user; voting again changes nothing."""
    await connection.execute(
        "INSERT INTO review_votes (review_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        review_id,
        user_id,
    )


async def take_vote_back(connection: Connection, review_id: str, user_id: str) -> None:
    await connection.execute(
        "DELETE FROM review_votes WHERE review_id = $1 AND user_id = $2", review_id, user_id
    )


def _review(row: Any) -> Review:
    values = {name: row[name] for name in Review.__struct_fields__}
    return Review(**{**values, "images": tuple(values["images"])})
