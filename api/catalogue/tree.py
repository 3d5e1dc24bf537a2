"""The categories in Postgres: read as a tree, changed one at a time, paths kept right by each change."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import asyncpg
import msgspec

from api.catalogue.document import Names
from api.catalogue.store import writing
from api.search.index import index_products
from engine.errors import Conflict, Invalid
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import log_audit

DEPTH_MAX: Final = 6
CATEGORIES_MAX: Final = 2000  # The tree is one answer.
INDEX_BATCH_MAX: Final = 500
_ONE_AT_A_TIME: Final = 0x7EE0FCA7  # Of the advisory lock: two moves could make a circle.

_COLUMNS: Final = "category_id, parent_id, path, position, name, products_active"


class Category(msgspec.Struct, frozen=True):
    """A category. `products_active` are those in itself, without those below."""

    category_id: str
    parent_id: str | None
    path: list[str]
    position: int
    name: dict[str, str]
    products_active: int


class CategoryWish(msgspec.Struct, frozen=True):
    """What a category is to be."""

    parent_id: str | None
    position: int
    name: Names


class CategoryTree:
    """The categories."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def all(self) -> list[Category]:
        """Parents before children, siblings in their order."""
        with postgres_errors():
            rows = await self._pool.fetch(
                f"SELECT {_COLUMNS} FROM categories"  # noqa: S608  # a constant list of columns
                " ORDER BY cardinality(path), position, category_id"
            )
        return [Category(**row) for row in rows]

    async def change(
        self, category_id: str, make: Callable[[Category | None], CategoryWish], actor: str
    ) -> tuple[Category, bool]:
        """Makes the category what `make` says, moves what is below it along; whether it is new.

        Raises Invalid for a parent that there is not, that lies below, or too deep.
        """
        async with writing(self._pool) as connection:
            before = await _locked(connection, category_id)
            wish = make(before)
            path = [*await _parent_path(connection, category_id, wish.parent_id), category_id]
            if before is None:
                await _make(connection, category_id, path, wish)
            else:
                await _change(connection, before, path, wish)
            after = await _find(connection, category_id)
            assert after is not None
            if after != before:
                await _audit(connection, actor, "put_category", after)
        return after, before is None

    async def remove(self, category_id: str, actor: str) -> Category | None:
        """The category that is no more, or None if there was none. Raises Conflict('category_in_use')."""
        try:
            async with writing(self._pool) as connection:
                before = await _locked(connection, category_id)
                if before is None:
                    return None
                await connection.execute(
                    "DELETE FROM categories WHERE category_id = $1", category_id
                )
                await _audit(connection, actor, "remove_category", before)
                return before
        except asyncpg.ForeignKeyViolationError:
            raise Conflict("category_in_use", "Move what is in it first.") from None


async def _locked(connection: Connection, category_id: str) -> Category | None:
    """The category, while nobody else changes the tree."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _ONE_AT_A_TIME)
    return await _find(connection, category_id)


async def _find(connection: Connection, category_id: str) -> Category | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM categories WHERE category_id = $1",  # noqa: S608
        category_id,
    )
    return None if row is None else Category(**row)


async def _parent_path(
    connection: Connection, category_id: str, parent_id: str | None
) -> list[str]:
    """From the root down to the parent. Raises Invalid."""
    if parent_id is None:
        return []
    parent = await _find(connection, parent_id)
    if parent is None:
        raise Invalid("parent_id", f"there is no category {parent_id}")
    if category_id in parent.path:
        raise Invalid("parent_id", "is the category itself or lies below it")
    if len(parent.path) >= DEPTH_MAX:
        raise Invalid("parent_id", f"is {DEPTH_MAX} levels deep already")
    return parent.path


async def _make(
    connection: Connection, category_id: str, path: list[str], wish: CategoryWish
) -> None:
    count: int = await connection.fetchval("SELECT count(*) FROM categories")
    if count >= CATEGORIES_MAX:
        raise Invalid("", f"there are {CATEGORIES_MAX} categories already, which is the most")
    await connection.execute(
        "INSERT INTO categories (category_id, parent_id, path, position, name)"
        " VALUES ($1, $2, $3, $4, $5)",
        category_id,
        wish.parent_id,
        path,
        wish.position,
        wish.name,
    )


async def _change(
    connection: Connection, before: Category, path: list[str], wish: CategoryWish
) -> None:
    await connection.execute(
        "UPDATE categories SET parent_id = $2, position = $3, name = $4 WHERE category_id = $1",
        before.category_id,
        wish.parent_id,
        wish.position,
        wish.name,
    )
    if path != before.path:
        await _move(connection, before.category_id, path)
    if path != before.path or wish.name != before.name:
        await _index(connection, before.category_id)


async def _move(connection: Connection, category_id: str, path: list[str]) -> None:
    """Puts the category and all below it on the new path."""
    try:
        await connection.execute(
            "UPDATE categories SET path = $2::text[] || path[array_position(path, $1) + 1 :]"
            " WHERE path @> ARRAY[$1::text]",
            category_id,
            path,
        )
    except asyncpg.CheckViolationError:
        raise Invalid("parent_id", f"would put categories below {DEPTH_MAX} levels") from None


async def _index(connection: Connection, category_id: str) -> None:
    """What is searched knows the names of the categories a product lies in."""
    after = ""
    while True:
        rows = await connection.fetch(
            "SELECT product_id FROM products JOIN categories USING (category_id)"
            " WHERE categories.path @> ARRAY[$1::text] AND product_id > $2"
            " ORDER BY product_id LIMIT $3",
            category_id,
            after,
            INDEX_BATCH_MAX,
        )
        if not rows:
            return
        after = rows[-1]["product_id"]
        await index_products(connection, [row["product_id"] for row in rows])


async def _audit(connection: Connection, actor: str, action: str, category: Category) -> None:
    detail: Mapping[str, Any] = {
        "category_id": category.category_id,
        "path": category.path,
        "position": category.position,
        "name": category.name,
    }
    await log_audit(connection, actor=actor, action=action, sale_id=None, detail=dict(detail))
