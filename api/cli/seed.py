"""`doorbuster seed`: the demo shop on the running engine."""

import typer

from api.cli.running import actor, on_engine
from api.demo.shop import SALE_ID, demo_document, seed
from api.shipping.seed import seed_shipping
from engine.core import Engine
from engine.store.database import postgres_errors

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command("seed")
def command() -> None:
    """Load the demo shop: an open sale `demo`, 8 SKUs, 10,000 units, at most 2 per buyer; two
    shipping methods.

    Loading it again changes nothing. `doorbuster up --demo` does this by itself.
    """
    if on_engine(_seed):
        units = sum(item.units for item in demo_document().items)
        print(f"Sale {SALE_ID} is open with {units:,} units.")
    else:
        print(f"Sale {SALE_ID} is there already; nothing changed.")


async def _seed(engine: Engine) -> bool:
    with postgres_errors():
        async with engine.pool.acquire() as connection:
            await seed_shipping(connection)
    return await seed(engine.sales, actor())
