"""The demo shop as it is loaded: whole, once, and as operators left it."""

from datetime import UTC, datetime

from redis.asyncio import Redis

from api.catalogue.handlers import OFFERS_SHOWN_MAX, PAGE
from api.catalogue.offers import offers
from api.demo.catalogue import DEMO_PRODUCTS
from api.demo.shop import demo_document, seed
from engine.servers import EmbeddedValkey
from tests.support.front import serve


async def test_the_demo_shop_is_loaded_once_and_what_it_sells_can_be_looked_at_and_ordered(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(valkey.url, postgres_url) as served:
        made = await seed(served.engine, "tester")
        assert made[:2] == ["sale demo", f"{DEMO_PRODUCTS:,} products"]
        pool = served.engine.pool
        await pool.execute("UPDATE products SET brand = 'Ours' WHERE product_id = 'flagship-phone'")
        assert await seed(served.engine, "tester") == []  # What an operator changed stays.
        assert await pool.fetchval("SELECT sum(products_active) FROM categories") == DEMO_PRODUCTS

        async with pool.acquire() as connection:
            skus = [item.sku for item in demo_document().items]
            found = await offers(connection, skus, "EUR")
        assert found.keys() == set(skus)
        assert all(offer.active and offer.available >= 0 for offer in found.values())
        phone = found["phone-black"]
        assert (phone.brand, phone.category_path) == ("Ours", ("digital", "phones"))
        # There is no list in euro: converted from yuan by the demo's rate.
        assert phone.unit_price_minor == 54258

        page = (await served.get("/v1/products/flagship-phone", accept_language="zh-CN")).json
        assert page["name"] == "旗舰手机"
        black = page["skus"][0]
        assert black["options"]["colour"] == "曜石黑"
        (offer,) = black["sales"]
        assert (offer["sale_id"], offer["state"], offer["available"]) == ("demo", "open", 2000)
        assert offer["price"]["amount_minor"] < black["price"]["amount_minor"]

        await pool.execute("ANALYZE")
        now = datetime.now(UTC)
        rows = await pool.fetch(
            f"EXPLAIN {PAGE}", "flagship-phone", "USD", "CNY", now, OFFERS_SHOWN_MAX
        )
        plan = "\n".join(row[0] for row in rows)
        for table in ("products", "skus", "sku_prices", "sale_items"):
            assert f"Seq Scan on {table}" not in plan, plan
