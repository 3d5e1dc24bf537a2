"""Loads the demo shop: a sale of 8 SKUs, open for years and paid for by itself, and a catalogue."""

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from importlib.resources import files
from typing import Final

from api.catalogue.document import Product
from api.catalogue.staging import Stored, store_products
from api.demo.catalogue import DEMO_SEED, RATES, categories, products, units_of
from api.demo.offers import COUPON, seed_coupon
from api.demo.words import shown_products
from api.moments import now_of
from api.rates.store import Rate, put_rates
from api.shipping.seed import seed_shipping
from engine.core import Engine
from engine.errors import UnknownSale
from engine.sales import SaleDocument, parse_sale_document
from engine.shelf import Shelf
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import log_audit

SALE_ID: Final = "demo"
SHOWN_SKU: Final = "phone-black"  # the one the examples buy
RATES_VALID_ON: Final = date(2024, 1, 1)  # As the sale opens.
SKUS_PUT_UP_MAX: Final = 2000  # At once.


def demo_document() -> SaleDocument:
    """The document that ships with the program."""
    return parse_sale_document(files("api.demo").joinpath("sale.json").read_bytes())


async def seed(engine: Engine, actor: str) -> list[str]:
    """Makes what of the demo shop is not there yet; says what that was."""
    made = []
    if await _seed_sale(engine, actor):
        made.append(f"sale {SALE_ID}")
    count = engine.settings.demo_products
    stored = await seed_catalogue(engine.pool, engine.shelf, actor, count=count)
    if stored is not None:
        made.append(f"{stored.products_created:,} products")
    with postgres_errors():
        async with engine.pool.acquire() as connection, connection.transaction():
            methods = await seed_shipping(connection)
            coupon = await seed_coupon(connection, engine.ids, now_of(engine.clock), actor)
    if methods:
        made.append(f"{methods} shipping methods")
    if coupon:
        made.append(f"coupon {COUPON}")
    return made


async def _seed_sale(engine: Engine, actor: str) -> bool:
    """Makes the demo sale unless there is one. Whether it was made now."""
    try:
        await engine.sales.get(SALE_ID)
    except UnknownSale:
        await engine.sales.create(demo_document(), actor)
        return True
    return False


async def seed_catalogue(pool: Pool, shelf: Shelf, actor: str, *, count: int) -> Stored | None:
    """Fills the catalogue, or returns None where it was filled before: what operators have changed
    since stays. One transaction."""
    with postgres_errors():
        async with pool.acquire() as connection, connection.transaction():
            if await _is_seeded(connection):
                return None
            await put_categories(connection)
            wanted = list(products(count, DEMO_SEED))
            stored = await store_products(connection, wanted)
            await _put_up(connection, shelf, wanted)
            await put_rates(connection, _rates(), actor)
            detail: dict[str, object] = {"products": stored.products_created}
            await log_audit(
                connection, actor=actor, action="seed_catalogue", sale_id=None, detail=detail
            )
    return stored


async def _is_seeded(connection: Connection) -> bool:
    first = shown_products()[0].product_id
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM products WHERE product_id = $1)", first
    )
    return found


async def put_categories(connection: Connection) -> None:
    tree = list(categories())
    await connection.execute(
        """
        INSERT INTO categories (category_id, parent_id, position, name, path)
        SELECT *, array_remove(ARRAY[parent_id, category_id], NULL)
        FROM unnest($1::text[], $2::text[], $3::int[], $4::jsonb[])
            AS demo (category_id, parent_id, position, name)
        ON CONFLICT DO NOTHING
        """,
        *([getattr(category, name) for category in tree] for name in tree[0]._fields),
    )


async def _put_up(connection: Connection, shelf: Shelf, wanted: Iterable[Product]) -> None:
    """Ordinary stock of all SKUs but those that happen to be sold out."""
    units = {
        sku.sku: units
        for product in wanted
        for sku in product.skus
        if (units := units_of(sku.sku, DEMO_SEED))
    }
    skus = list(units)
    for at in range(0, len(skus), SKUS_PUT_UP_MAX):
        part = skus[at : at + SKUS_PUT_UP_MAX]
        await shelf.put_up(connection, {sku: units[sku] for sku in part})


def _rates() -> list[Rate]:
    return [
        Rate("CNY", quote, RATES_VALID_ON, Decimal(rate), "demo") for quote, rate in RATES.items()
    ]
