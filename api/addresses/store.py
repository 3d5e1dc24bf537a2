"""Keeps buyers' addresses in Postgres. One of a buyer's is the default, as long as there is any."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import msgspec

from engine.errors import Conflict
from engine.store.database import Connection, Pool, postgres_errors

ADDRESSES_MAX: Final = 20  # Of one user: family and offices; more is a warehouse.


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a parcel goes. `country` is ISO 3166-1 alpha-2."""

    name: str
    phone: str
    country: str
    region: str
    city: str
    street: str
    postal_code: str


class Address(Place, frozen=True, kw_only=True):
    """A place that a user keeps."""

    address_id: str
    is_default: bool = False


_PLACE: Final = Place.__struct_fields__
_COLUMNS: Final = ", ".join(Address.__struct_fields__)


class Addresses:
    """The addresses table. Whose an address is, is part of every question."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, user_id: str, address_id: str) -> Address | None:
        """None too where it is another's."""
        with postgres_errors():
            row = await self._pool.fetchrow(
                f"SELECT {_COLUMNS} FROM addresses WHERE user_id = $1 AND address_id = $2",  # noqa: S608
                user_id,
                address_id,
            )
        return _address(row)

    async def of_user(self, user_id: str) -> list[Address]:
        """The default first, then the newest."""
        with postgres_errors():
            rows = await self._pool.fetch(
                f"SELECT {_COLUMNS} FROM addresses WHERE user_id = $1"  # noqa: S608
                " ORDER BY is_default DESC, created_at DESC, address_id LIMIT $2",
                user_id,
                ADDRESSES_MAX,
            )
        return [msgspec.convert(dict(row), Address) for row in rows]

    async def add(
        self, user_id: str, address_id: str, place: Place, *, is_default: bool, at: datetime
    ) -> Address:
        """A new one; the first is the default. Raises Conflict('too_many_addresses')."""
        async with self._changing(user_id) as connection:
            count = await connection.fetchval(
                "SELECT count(*) FROM addresses WHERE user_id = $1", user_id
            )
            if count >= ADDRESSES_MAX:
                raise Conflict(
                    "too_many_addresses", f"There are {ADDRESSES_MAX} addresses already."
                )
            is_default = is_default or count == 0
            if is_default:
                await _unset_default(connection, user_id)
            values = msgspec.structs.asdict(place)
            await connection.execute(
                "INSERT INTO addresses (user_id, address_id, is_default, created_at, name, phone,"
                " country, region, city, street, postal_code)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                user_id,
                address_id,
                is_default,
                at,
                *values.values(),
            )
        return Address(address_id=address_id, is_default=is_default, **values)

    async def change(
        self, user_id: str, address_id: str, changes: Mapping[str, str]
    ) -> Address | None:
        """Sets some of a Place's fields. None if the user has no such address."""
        assert changes.keys() <= set(_PLACE), "they become the names of columns"
        columns = ", ".join(f"{name} = ${number}" for number, name in enumerate(changes, 3))
        with postgres_errors():
            row = await self._pool.fetchrow(
                f"UPDATE addresses SET {columns} WHERE user_id = $1 AND address_id = $2"  # noqa: S608
                f" RETURNING {_COLUMNS}",
                user_id,
                address_id,
                *changes.values(),
            )
        return _address(row)

    async def make_default(self, user_id: str, address_id: str) -> Address | None:
        """In place of the one that was. None if the user has no such address."""
        async with self._changing(user_id) as connection:
            known = await connection.fetchval(
                "SELECT true FROM addresses WHERE user_id = $1 AND address_id = $2",
                user_id,
                address_id,
            )
            if not known:
                return None
            await _unset_default(connection, user_id)
            row = await connection.fetchrow(
                f"UPDATE addresses SET is_default = true WHERE address_id = $1"  # noqa: S608
                f" RETURNING {_COLUMNS}",
                address_id,
            )
        return _address(row)

    async def remove(self, user_id: str, address_id: str) -> bool:
        """Whether there was one. If it was the default, the newest of the others is from now on."""
        async with self._changing(user_id) as connection:
            was_default = await connection.fetchval(
                "DELETE FROM addresses WHERE user_id = $1 AND address_id = $2 RETURNING is_default",
                user_id,
                address_id,
            )
            if was_default:
                await connection.execute(
                    "UPDATE addresses SET is_default = true WHERE address_id = (SELECT address_id"
                    " FROM addresses WHERE user_id = $1 ORDER BY created_at DESC, address_id LIMIT 1)",
                    user_id,
                )
        return was_default is not None

    @asynccontextmanager
    async def _changing(self, user_id: str) -> AsyncIterator[Connection]:
        """A transaction in which nobody else changes this user's addresses: they are counted."""
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended('addresses of ' || $1, 0))",
                    user_id,
                )
                yield connection


async def _unset_default(connection: Connection, user_id: str) -> None:
    await connection.execute(
        "UPDATE addresses SET is_default = false WHERE user_id = $1 AND is_default", user_id
    )


def _address(row: Any) -> Address | None:
    return msgspec.convert(dict(row), Address) if row else None
