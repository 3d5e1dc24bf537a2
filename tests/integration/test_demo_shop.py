"""The demo shop as it is loaded: whole, once, and as operators left it."""

from api.catalogue.offers import offers
from api.demo.catalogue import DEMO_PRODUCTS
from api.demo.shop import demo_document, seed_catalogue
from engine.clock import SystemClock
from engine.shelf import Shelf
from engine.store.database import Pool


async def test_the_demo_catalogue_is_loaded_once_and_what_it_sells_can_be_ordered(
    pool: Pool,
) -> None:
    shelf = Shelf(pool, SystemClock(), checkout_seconds=900)
    stored = await seed_catalogue(pool, shelf, "tester")
    assert stored is not None
    assert stored.products_created == DEMO_PRODUCTS
    await pool.execute("UPDATE products SET brand = 'Ours' WHERE product_id = 'flagship-phone'")
    assert await seed_catalogue(pool, shelf, "tester") is None
    async with pool.acquire() as connection:
        skus = [item.sku for item in demo_document().items]
        found = await offers(connection, skus, "EUR")
    assert found.keys() == set(skus)
    assert found["phone-black"].brand == "Ours"  # What an operator changed stays.
    assert found["phone-black"].category_path == ("digital", "phones")
    # There is no list in euro: converted from yuan by the demo's rate.
    assert found["phone-black"].unit_price_minor == 54258
    assert all(offer.active and offer.available >= 0 for offer in found.values())
    assert await pool.fetchval("SELECT sum(products_active) FROM categories") == DEMO_PRODUCTS
