"""Stores shipping methods whole: a method is written and read with all of its zones and fees."""

from collections.abc import Mapping
from typing import Any

import msgspec

from api.shipping.documents import Fee, Method, MethodDocument, Zone
from engine.store.database import Connection

Row = Mapping[str, Any]


async def put_method(connection: Connection, method_id: str, document: MethodDocument) -> bool:
    """Whether it is new. Belongs into a transaction."""
    new = await connection.fetchval(
        """
        INSERT INTO shipping_methods (method_id, name, carrier, position, active)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (method_id) DO UPDATE
        SET name = $2, carrier = $3, position = $4, active = $5
        RETURNING xmax = 0
        """,
        method_id,
        document.name,
        document.carrier,
        document.position,
        document.active,
    )
    await connection.execute("DELETE FROM shipping_zones WHERE method_id = $1", method_id)
    await _add_zones(connection, method_id, document.zones)
    await _add_fees(connection, method_id, document.zones)
    return bool(new)


async def withdraw_method(connection: Connection, method_id: str) -> bool:
    """Offers it no more; orders that go by it keep its name. False if there is none."""
    found = await connection.fetchval(
        "UPDATE shipping_methods SET active = false WHERE method_id = $1 RETURNING true", method_id
    )
    return bool(found)


async def fetch_methods(connection: Connection, method_id: str | None = None) -> list[Method]:
    """All of them or one, in the shop's order. There are a handful: no page is needed."""
    methods = await connection.fetch(
        """
        SELECT * FROM shipping_methods WHERE $1::text IS NULL OR method_id = $1
        ORDER BY position, method_id
        """,
        method_id,
    )
    zones = await connection.fetch(
        """
        SELECT z.*, (
            SELECT coalesce(jsonb_agg(to_jsonb(f) ORDER BY currency), '[]') FROM shipping_fees f
            WHERE (f.method_id, f.zone) = (z.method_id, z.zone)) AS fees
        FROM shipping_zones z WHERE $1::text IS NULL OR method_id = $1 ORDER BY method_id, zone
        """,
        method_id,
    )
    return [_method(row, [zone for zone in zones if _same(zone, row)]) for row in methods]


async def _add_zones(connection: Connection, method_id: str, zones: list[Zone]) -> None:
    await connection.executemany(
        """
        INSERT INTO shipping_zones (method_id, zone, country, regions, days_min, days_max)
        VALUES ($1, $2, $3, $4, $5, $6)
        """,
        [
            (method_id, number, zone.country, zone.regions, zone.days_min, zone.days_max)
            for number, zone in enumerate(zones)
        ],
    )


async def _add_fees(connection: Connection, method_id: str, zones: list[Zone]) -> None:
    await connection.executemany(
        """
        INSERT INTO shipping_fees (method_id, zone, currency, first_grams, first_minor, step_grams,
                                   step_minor, grams_max, free_from_minor)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        [
            (
                method_id,
                number,
                fee.currency,
                fee.first_grams,
                fee.first_minor,
                fee.step_grams,
                fee.step_minor,
                fee.grams_max,
                fee.free_from_minor,
            )
            for number, zone in enumerate(zones)
            for fee in zone.fees
        ],
    )


def _same(zone: Row, method: Row) -> bool:
    return bool(zone["method_id"] == method["method_id"])


def _method(row: Row, zones: list[Row]) -> Method:
    return Method(
        method_id=row["method_id"],
        name=row["name"],
        carrier=row["carrier"],
        zones=[_zone(zone) for zone in zones],
        position=row["position"],
        active=row["active"],
    )


def _zone(row: Row) -> Zone:
    fees = [{name: fee[name] for name in Fee.__struct_fields__} for fee in row["fees"]]
    return Zone(
        country=row["country"],
        days_min=row["days_min"],
        days_max=row["days_max"],
        fees=msgspec.convert(fees, list[Fee]),
        regions=row["regions"],
    )
