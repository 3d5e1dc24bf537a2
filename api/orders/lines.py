"""What the SKUs of orders are called: the sale's word for what a sale sold, else the catalogue's."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec

from api.language import pick
from engine.store.database import Connection

_NAMES: Final = (files("api.orders") / "names.sql").read_text()


class LineBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some units of one SKU, by name."""

    sku: str
    name: str
    quantity: int
    image: str | None = None


class Named(msgspec.Struct, frozen=True):
    """What a SKU is called, by language, and its picture."""

    name: dict[str, str]
    image: str | None = None


Names = Mapping[tuple[str, str], Named]  # by (sale_id, sku)


async def names_of(
    connection: Connection, orders: Iterable[tuple[str, Mapping[str, int]]]
) -> dict[tuple[str, str], Named]:
    """Of all SKUs in (sale_id, items). What nobody knows any more is left out."""
    pairs = sorted({(sale_id, sku) for sale_id, items in orders for sku in items})
    rows = await connection.fetch(
        _NAMES, [sale_id for sale_id, _ in pairs], [sku for _, sku in pairs]
    )
    return {(row["sale_id"], row["sku"]): _named(row) for row in rows}


def line_bodies(
    sale_id: str, items: Mapping[str, int], names: Names, language: str
) -> list[LineBody]:
    """In the order of their SKUs; one without a name is called by its SKU."""
    found: list[LineBody] = []
    for sku, quantity in sorted(items.items()):
        named = names.get((sale_id, sku), Named({}))
        found.append(LineBody(sku, pick(named.name, language) or sku, quantity, named.image))
    return found


def _named(row: Mapping[str, Any]) -> Named:
    images: Sequence[str] = row["images"] or []
    return Named(row["name"] or {}, images[0] if images else None)
