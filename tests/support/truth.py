"""A whole engine for tests of the truth tools, with sales that ran."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from engine.config import Settings
from engine.connections import connect_redis_blocking
from engine.core import Engine
from engine.dispatcher import Dispatcher
from engine.drainer import Drainer
from engine.model import Reserved
from engine.sales import Sale
from engine.servers import EmbeddedValkey
from engine.store.database import connect
from engine.store.resolutions import CANCEL, EXPIRE, PAY, OrderKey, Resolution, lock_orders, resolve
from tests.support.sales import open_sale, reserve_for

BUYERS = [f"buyer-{number}" for number in range(8)]


@asynccontextmanager
async def opened_engine(
    valkey: EmbeddedValkey, postgres_url: str, **settings: object
) -> AsyncIterator[Engine]:
    wanted = Settings(redis_url=valkey.url, postgres_url=postgres_url)
    engine = await Engine.open(msgspec.structs.replace(wanted, **settings))
    try:
        yield engine
    finally:
        await engine.close()


async def drain(engine: Engine, sale_id: str = "demo") -> None:
    """Stores everything that is in the stream."""
    assert engine.settings.redis_url is not None
    url = engine.settings.postgres_url
    assert url is not None
    blocking = connect_redis_blocking(engine.settings.redis_url)
    drainer = Drainer(
        blocking,
        lambda: connect(url),
        engine.directory,
        engine.clock,
        consumer="tester",
        batch_max=100,
        attempts_max=1,
        claim_idle_seconds=0,
    )
    try:
        await drainer.drain_sale(sale_id)
    finally:
        await drainer.close()
        await blocking.aclose()


async def move(engine: Engine, resolution: Resolution, user: str, answer: Reserved) -> None:
    """Pays, cancels or expires one order in Postgres. Redis follows when it is dispatched."""
    keys = [OrderKey("demo", answer.reservation_id)]
    async with engine.pool.acquire() as connection, connection.transaction():
        await lock_orders(connection, keys)
        moved = await resolve(connection, resolution, keys)
        assert [order.user_id for order in moved] == [user]
        if resolution is PAY:
            await connection.execute(
                """
                INSERT INTO payments (payment_id, sale_id, reservation_id, idempotency_key,
                                      provider, amount_minor, currency, status)
                SELECT 'pay-' || reservation_id, sale_id, reservation_id, 'k', 'sandbox',
                       amount_minor, currency, 'captured'
                FROM orders WHERE reservation_id = $1
                """,
                answer.reservation_id,
            )


async def dispatch(engine: Engine) -> None:
    """Tells Redis everything that Postgres decided."""
    dispatcher = Dispatcher(engine.pool, engine.inventory, engine.directory)
    while await dispatcher.dispatch_once():
        pass


async def ran_sale(engine: Engine, stock: int = 20) -> tuple[Sale, dict[str, Reserved]]:
    """A sale with a paid, a cancelled, an expired and five unpaid orders, all at rest."""
    sale = await open_sale(engine.pool, engine.inventory, stock={"phone-black": stock, "case": 20})
    answers = await reserve_for(engine.inventory, sale, BUYERS, "case*1,phone-black*1")
    bought = {
        user: answer
        for user, answer in zip(BUYERS, answers, strict=True)
        if isinstance(answer, Reserved)
    }
    await drain(engine)
    for resolution, user in zip((PAY, CANCEL, EXPIRE), BUYERS, strict=False):
        await move(engine, resolution, user, bought[user])
    await dispatch(engine)
    return sale, bought
