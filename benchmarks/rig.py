"""Servers of a benchmark's own in a temporary folder, strict durability, and a sale on them."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg

from engine.clock import SystemClock
from engine.config import Settings
from engine.connections import connect_redis
from engine.inventory import Inventory
from engine.model import Money, ReserveRequest, make_reservation_id
from engine.sales import Sale, SaleControl, SaleDocument, SaleItem
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from engine.store.database import open_pool
from engine.store.migrate import upgrade

SECRET: Final = "benchmark-secret-" * 2
UNITS: Final = 10_000_000  # Of each SKU: never the limit.
SKUS: Final = tuple(f"phone-{number}" for number in range(8))


@contextmanager
def valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey in strict mode, gone afterwards."""
    with temporary_folder() as folder:
        server = EmbeddedValkey(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def servers() -> Iterator[Settings]:
    """Valkey and a migrated Postgres, and the settings that lead to them."""
    with temporary_folder() as folder:
        redis, postgres = EmbeddedValkey(folder), EmbeddedPostgres(folder)
        try:
            redis.start()
            postgres.start()
            yield Settings(redis_url=redis.url, postgres_url=postgres.url, secret=SECRET)
        finally:
            postgres.stop()
            redis.stop()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="doorbuster-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def put_up_sale(settings: Settings, sale_id: str = "bench") -> Sale:
    """A sale of eight SKUs that captures by itself: every order has an outbox row."""
    assert settings.postgres_url is not None
    assert settings.redis_url is not None
    connection = await asyncpg.connect(settings.postgres_url)
    await upgrade(connection)
    await connection.close()
    redis = connect_redis(settings.redis_url, 5)
    async with await open_pool(settings.postgres_url, 2) as pool:
        clock = SystemClock()
        inventory = Inventory(redis, clock, batch_max=512, queue_max=1)
        sale = await SaleControl(pool, inventory, clock).create(make_document(sale_id), "benchmark")
    await redis.aclose()
    return sale


def make_document(sale_id: str) -> SaleDocument:
    now = datetime.now(UTC)
    return SaleDocument(
        sale_id=sale_id,
        name={"en": "Benchmark"},
        opens_at=now - timedelta(minutes=1),
        closes_at=now + timedelta(days=1),
        per_user_max=2,
        reservation_seconds=3600,
        items=tuple(SaleItem(sku, {"en": sku}, UNITS, Money(129900, "CNY")) for sku in SKUS),
        auto_capture=True,
    )


def make_requests(sale_id: str, first: int, count: int) -> list[ReserveRequest]:
    """Distinct buyers, one unit each, spread over the SKUs."""
    return [
        ReserveRequest(
            f"buyer-{number:07d}",
            make_reservation_id(sale_id, f"buyer-{number:07d}", "click"),
            f"{SKUS[number % len(SKUS)]}*1",
        )
        for number in range(first, first + count)
    ]


def machine() -> dict[str, object]:
    """Where a number was measured."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {"cores": len(os.sched_getaffinity(0)), "cpu": models[0] if models else "unknown"}


def server_facts(info: Mapping[str, object], names: Sequence[str] = ()) -> dict[str, object]:
    """What of INFO says which server it was."""
    wanted = ("redis_version", "valkey_version", "os", "gcc_version", "aof_enabled", *names)
    return {name: info[name] for name in wanted if name in info}
