"""How long `check` and `recover` take on a sale of a million orders, and how much memory.

    python benchmarks/check_million.py [--orders 1000000]

Starts servers of its own, seeds Postgres with generate_series and Redis with pipelines, then
measures. The check has to pass: a fast look at the wrong thing is worth nothing.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from engine.config import Settings
from engine.core import Engine
from engine.inventory.inventory import Counters
from engine.keys import shard_keys
from engine.model import Money
from engine.reconciler import check
from engine.recovery import recover
from engine.sales import Sale, SaleDocument, SaleItem
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from engine.store.migrate import upgrade

SKUS = [f"sku-{number}" for number in range(8)]
SALE = "million"
USERS_PER_WRITE = 5000

# Order n is of user n and takes one unit of one SKU. Of ten, six are paid, one is cancelled, one
# expired, and two wait for payment.
SEED_ORDERS = """
INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency, status,
                    reserved_at, reserved_until)
SELECT $1, lpad(n::text, 20, '0'), 'user-' || n, jsonb_build_object('sku-' || n % 8, 1), 129900,
       'CNY', (CASE n % 10 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'expired'
               WHEN 2 THEN 'awaiting_payment' WHEN 3 THEN 'awaiting_payment' ELSE 'paid' END),
       now() - interval '1 minute', to_timestamp($3::bigint)
FROM generate_series(0, $2::bigint - 1) AS n
"""
SEED_PAYMENTS = """
INSERT INTO payments (payment_id, sale_id, reservation_id, idempotency_key, provider, amount_minor,
                      currency, status)
SELECT 'pay-' || reservation_id, sale_id, reservation_id, 'auto', 'sandbox', amount_minor, currency,
       'captured'
FROM orders WHERE status = 'paid'
"""
SEED_COUNTERS = """
WITH units AS (
    SELECT key AS sku, count(*) FILTER (WHERE status IN ('paid', 'awaiting_payment')) AS ordered,
           count(*) FILTER (WHERE status = 'paid') AS sold
    FROM orders, jsonb_object_keys(items) AS key GROUP BY key
), counted AS (
    UPDATE sale_items SET ordered = units.ordered, sold = units.sold
    FROM units WHERE sale_items.sku = units.sku
)
INSERT INTO ledger (sale_id, sku, counter, units, reason)
SELECT $1, sku, 'ordered', ordered, 'drained' FROM units
UNION ALL SELECT $1, sku, 'sold', sold, 'paid' FROM units
"""
LETTERS = ("x", "e", "r", "r", "c", "c", "c", "c", "c", "c")


async def seed(engine: Engine, orders: int) -> Sale:
    now = datetime.now(UTC)
    sale = await engine.sales.create(
        SaleDocument(
            sale_id=SALE,
            name={"en": "A million"},
            opens_at=now - timedelta(minutes=5),
            closes_at=now + timedelta(days=1),
            per_user_max=2,
            reservation_seconds=86_400,
            items=tuple(
                SaleItem(sku, {"en": sku}, orders // 8 + 1000, Money(129900, "CNY")) for sku in SKUS
            ),
        ),
        "benchmark",
    )
    until_s = int((now + timedelta(days=1)).timestamp())
    async with engine.pool.acquire() as connection:
        await connection.execute(SEED_ORDERS, SALE, orders, until_s, timeout=600)
        await connection.execute(SEED_PAYMENTS, timeout=600)
        await connection.execute(SEED_COUNTERS, SALE, timeout=600)
        await connection.execute("ANALYZE", timeout=600)
        rows = await connection.fetch("SELECT sku, stocked, ordered, sold FROM sale_items")
    await seed_redis(engine, orders, until_s, rows)
    return sale


async def seed_redis(engine: Engine, orders: int, until_s: int, rows: list[Any]) -> None:
    redis: Any = engine.redis
    keys = shard_keys(SALE)
    for start in range(0, orders, USERS_PER_WRITE):
        await redis.hset(
            keys.buyers,
            mapping={
                f"user-{n}": f"{n:020d}{LETTERS[n % 10]}{until_s:010d}sku-{n % 8}*1"
                for n in range(start, min(start + USERS_PER_WRITE, orders))
            },
        )
    for row in rows:
        counters = Counters(
            row["stocked"] - row["ordered"], row["ordered"] - row["sold"], row["sold"]
        )
        names = [f"{row['sku']}:{name}" for name in Counters._fields]
        await redis.hset(keys.stock, mapping=dict(zip(names, counters, strict=True)))


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def measure(redis_url: str, postgres_url: str, orders: int) -> None:
    connection = await asyncpg.connect(postgres_url)
    await upgrade(connection)
    await connection.close()
    engine = await Engine.open(Settings(redis_url=redis_url, postgres_url=postgres_url))
    try:
        began = time.perf_counter()
        await seed(engine, orders)
        print(f"seeded {orders:,} orders in {time.perf_counter() - began:.1f} s; {peak_mib()} MiB")
        await measure_check(engine, "check")
        began = time.perf_counter()
        report = await recover(engine, SALE)
        seconds = time.perf_counter() - began
        print(f"recover: {report.orders:,} orders in {seconds:.1f} s; peak {peak_mib()} MiB")
        await measure_check(engine, "check after recover")
    finally:
        await engine.close()


async def measure_check(engine: Engine, name: str) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    findings = await check(engine, [SALE])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print("\n".join(finding.line for finding in findings))
    print(f"{name}: {seconds:.1f} s, {cpu:.1f} s of them this process; peak {peak_mib()} MiB")
    if not all(finding.ok for finding in findings):
        raise SystemExit("The check failed: no number counts.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=1_000_000)
    orders = parser.parse_args().orders
    with tempfile.TemporaryDirectory(prefix="doorbuster-million-") as folder:
        valkey, postgres = EmbeddedValkey(Path(folder)), EmbeddedPostgres(Path(folder))
        valkey.start()
        postgres.start()
        try:
            asyncio.run(measure(valkey.url, postgres.url, orders))
        finally:
            valkey.stop()
            postgres.stop()


if __name__ == "__main__":
    main()
