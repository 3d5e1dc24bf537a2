"""Opens and closes everything one engine process needs, in order. Decides nothing."""

from dataclasses import dataclass
from math import inf
from random import SystemRandom
from secrets import token_hex
from typing import Self

from redis.asyncio import Redis

from engine.admission.access import AccessControl, AccessRules
from engine.admission.breaker import Breaker
from engine.admission.pulse import Pulse
from engine.admission.room.control import RoomControl
from engine.admission.room.rooms import Rooms
from engine.admission.room.store import RoomStore
from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.connections import connect_redis, verify_durability
from engine.errors import ConfigError
from engine.ids import Ids, RandomIds
from engine.inventory import Inventory
from engine.inventory.link import RedisLink
from engine.inventory.memory import StockMemory
from engine.orders import OrderService
from engine.payment.service import PaymentService
from engine.sales import LiveStock, SaleControl, SaleDirectory
from engine.shelf import Shelf
from engine.store.database import Pool, open_pool
from ext import Meter


@dataclass
class Engine:
    """What the borders (HTTP, command line, worker) call. Has exactly one owner, who closes it."""

    settings: Settings
    clock: Clock
    ids: Ids
    redis: Redis
    pool: Pool
    inventory: Inventory
    memory: StockMemory
    directory: SaleDirectory
    live_stock: LiveStock
    sales: SaleControl
    shelf: Shelf
    orders: OrderService
    payments: PaymentService
    meter: Meter  # that `pulse` keeps at this process's share of the pace
    pulse: Pulse
    access: AccessRules
    access_control: AccessControl
    rooms: Rooms
    room_control: RoomControl

    @classmethod
    async def open(
        cls, settings: Settings, clock: Clock | None = None, ids: Ids | None = None
    ) -> Self:
        """Raises ConfigError, RedisUnavailable or StoreUnavailable, each one clear sentence."""
        if settings.redis_url is None or settings.postgres_url is None:
            raise ConfigError(["DOORBUSTER_REDIS_URL and DOORBUSTER_POSTGRES_URL are not known."])
        clock, ids = clock or SystemClock(), ids or RandomIds()
        breakers = {name: Breaker(name, clock, SystemRandom()) for name in ("redis", "postgres")}
        redis = connect_redis(settings.redis_url, settings.redis_timeout_seconds)
        try:
            await verify_durability(redis, settings)
            pool = await open_pool(
                settings.postgres_url, settings.postgres_pool_max, breakers["postgres"]
            )
        except BaseException:
            await redis.aclose()
            raise
        inventory = _make_inventory(settings, redis, clock, breakers["redis"])
        directory = SaleDirectory(pool, clock)
        meter, name = Meter(clock), ids.new("front")
        pulse = Pulse(redis, clock, name, meter, pace_max=float(settings.pace_max or inf))
        room_store = RoomStore(redis, clock, name=name, breaker=breakers["redis"])
        return cls(
            settings=settings,
            clock=clock,
            ids=ids,
            redis=redis,
            pool=pool,
            inventory=inventory,
            memory=StockMemory(inventory, redis, clock),
            directory=directory,
            live_stock=LiveStock(inventory, clock),
            sales=SaleControl(pool, inventory, clock),
            shelf=Shelf(pool, clock, checkout_seconds=settings.checkout_seconds),
            orders=OrderService(pool, inventory, directory, clock),
            payments=PaymentService(pool, ids),
            meter=meter,
            pulse=pulse,
            access=AccessRules(pool, clock),
            access_control=AccessControl(pool, clock),
            rooms=Rooms(room_store, directory, pulse, clock, settings.secret or token_hex()),
            room_control=RoomControl(pool, room_store, clock),
        )

    async def close(self) -> None:
        """Answers what was accepted, then closes. Idempotent."""
        await self.memory.stop()
        await self.rooms.store.stop()
        await self.inventory.stop()
        await self.pool.close()
        await self.redis.aclose()


def _make_inventory(settings: Settings, redis: Redis, clock: Clock, breaker: Breaker) -> Inventory:
    return Inventory(
        redis,
        clock,
        batch_max=settings.batch_max,
        queue_max=settings.reserve_queue_max,
        deadline_seconds=settings.deadline_seconds,
        link=RedisLink(redis),
        breaker=breaker,
    )
