"""A small catalogue to search in, written straight into the tables and indexed."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from api.search.index import index_products
from engine.model import SHOP
from engine.store.database import Pool

SINCE: Final = datetime(2026, 1, 1, tzinfo=UTC)

CATEGORIES: Final = [
    ("digital", None, "Digital", "数码"),
    ("phones", "digital", "Phones", "手机"),
    ("phone-cases", "digital", "Phone cases", "手机壳"),
    ("headphones", "digital", "Headphones", "耳机"),
    ("home", None, "Home", "家居"),
    ("kettles", "home", "Kettles", "水壶"),
]
# id, category, brand, English, Chinese, yuan, units
Good = tuple[str, str, str, str, str, int, int]
GOODS: Final[list[Good]] = [
    ("case-1", "phone-cases", "Aurora", "Aurora clear phone case", "极光透明手机壳", 39, 9),
    ("case-2", "phone-cases", "Lumen", "Lumen leather case for phone", "流明真皮手机壳", 99, 9),
    (
        "phone-1",
        "phones",
        "Aurora",
        "Aurora X1 smartphone, black",
        "极光 X1 智能手机 黑色",
        3999,
        5,
    ),
    ("phone-2", "phones", "Lumen", "Lumen Mini phone", "流明小屏手机", 1999, 0),
    ("phone-3", "phones", "Aurora", "Aurora folding phone", "极光折叠手机", 8999, 3),
    ("ears-1", "headphones", "Aurora", "Aurora wireless headphones", "极光蓝牙耳机", 599, 7),
    ("ears-2", "headphones", "Lumen", "Lumen studio headphones", "流明录音室耳机", 1299, 7),
    ("kettle-1", "kettles", "Hearth", "Hearth quick kettle", "暖炉快速电水壶", 199, 7),
]


async def put_up_goods(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        for position, (category, parent, en, zh) in enumerate(CATEGORIES):
            path = [parent, category] if parent else [category]
            await connection.execute(
                "INSERT INTO categories VALUES ($1, $2, $3, $4, $5)",
                category, parent, path, position, {"en": en, "zh-CN": zh},
            )  # fmt: skip
        for number, good in enumerate(GOODS):
            await put_up(connection, good, created_at=SINCE + timedelta(days=number))


async def put_up(connection: Any, good: Good, created_at: datetime = SINCE) -> None:
    """One product of one SKU, `<id>-0`, indexed as the catalogue does it."""
    product_id, category, brand, en, zh, yuan, units = good
    await connection.execute(
        "INSERT INTO products (product_id, category_id, brand, name, description, created_at)"
        " VALUES ($1, $2, $3, $4, '{}', $5)",
        product_id, category, brand, {"en": en, "zh-CN": zh}, created_at,
    )  # fmt: skip
    sku = f"{product_id}-0"
    await connection.execute("INSERT INTO skus (sku, product_id) VALUES ($1, $2)", sku, product_id)
    prices = [(sku, "CNY", yuan * 100), (sku, "USD", yuan * 100 // 7)]
    await connection.executemany("INSERT INTO sku_prices VALUES ($1, $2, $3)", prices)
    await connection.execute(
        "INSERT INTO sale_items (sale_id, sku, position, name, price_minor, currency, stocked)"
        " VALUES ($1, $2, 0, '{}', 0, 'CNY', $3)",
        SHOP, sku, units,
    )  # fmt: skip
    await index_products(connection, [product_id])


async def change(pool: Pool, statement: str, *values: Any, products: Iterable[str]) -> None:
    """A change of the catalogue with the index brought up in the same transaction."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(statement, *values)
        await index_products(connection, list(products))
