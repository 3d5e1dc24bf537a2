"""Servers of a benchmark's own in a temporary folder, strict durability, and a sale on them."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg

from engine.clock import SystemClock
from engine.config import Durability, Settings
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
def valkey(durability: Durability = Durability.STRICT) -> Iterator[EmbeddedValkey]:
    """A Valkey, in strict mode if not said otherwise, gone afterwards."""
    with temporary_folder() as folder:
        server = EmbeddedValkey(folder, durability)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def postgres() -> Iterator[EmbeddedPostgres]:
    """A Postgres without tables, gone afterwards."""
    with temporary_folder() as folder:
        server = EmbeddedPostgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def servers(durability: Durability = Durability.STRICT) -> Iterator[Settings]:
    """Valkey and Postgres, and the settings that lead to them."""
    with valkey(durability) as redis, postgres() as database:
        yield make_settings(redis.url, database.url, durability)


def make_settings(
    redis_url: str, postgres_url: str, durability: Durability = Durability.STRICT
) -> Settings:
    return Settings(
        redis_url=redis_url, postgres_url=postgres_url, secret=SECRET, durability=durability
    )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="doorbuster-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def migrate(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await upgrade(connection)
    await connection.close()


async def put_up_sale(
    settings: Settings, sale_id: str = "bench", document: SaleDocument | None = None
) -> Sale:
    """The sale of `document`; without one, of eight SKUs that captures by itself: every order has
    an outbox row."""
    assert settings.postgres_url is not None
    assert settings.redis_url is not None
    await migrate(settings.postgres_url)
    redis = connect_redis(settings.redis_url, 5)
    async with await open_pool(settings.postgres_url, 2) as pool:
        clock = SystemClock()
        inventory = Inventory(redis, clock, batch_max=512, queue_max=1)
        control = SaleControl(pool, inventory, clock)
        sale = await control.create(document or make_document(sale_id), "benchmark")
    await redis.aclose()
    return sale


def make_document(
    sale_id: str,
    *,
    skus: Sequence[str] = SKUS,
    units: int = UNITS,
    per_user_max: int = 2,
    auto_capture: bool = True,
) -> SaleDocument:
    now = datetime.now(UTC)
    return SaleDocument(
        sale_id=sale_id,
        name={"en": "Benchmark"},
        opens_at=now - timedelta(minutes=1),
        closes_at=now + timedelta(days=1),
        per_user_max=per_user_max,
        reservation_seconds=3600,
        items=tuple(SaleItem(sku, {"en": sku}, units, Money(129900, "CNY")) for sku in skus),
        auto_capture=auto_capture,
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
