"""Composes the loops behind the answer: drain, pace, reap, pay, handle webhooks, dispatch, sync, watch.

Each is supervised: one that crashes comes back, and none takes another down. Decides nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import chain
from typing import Final, Protocol

from redis.asyncio import Redis

from engine.connections import connect_redis_blocking
from engine.core import Engine
from engine.dispatcher import Dispatcher
from engine.drainer import Drainer
from engine.errors import Unavailable
from engine.fence import Fence
from engine.gauges import Gauges
from engine.pacer import PACE_SECONDS, Pacer
from engine.payment.late import LateCaptures
from engine.payment.payer import Payer
from engine.payment.provider import Provider
from engine.payment.sandbox import NAME as SANDBOX
from engine.payment.webhooks import Inbox
from engine.polling import pause, supervise
from engine.reaper import Reaper
from engine.store.database import connect

logger = logging.getLogger(__name__)

SYNC_SECONDS: Final = 1.0  # How soon Redis follows a change that it missed.
WATCH_SECONDS: Final = 1.0  # How soon a Redis that lost data is noticed.
GAUGE_SECONDS: Final = 2.0
# The loops stop in four stages; all of it together stays well below the minute after which a
# supervisor kills: 4 × (8 + 1) + 8 s.
STOP_SECONDS_MAX: Final = 8.0  # For each stage to finish its passes, and for what is left to drain.
CUT_SECONDS_MAX: Final = 1.0  # For a loop that did not, to notice that it was cancelled.


class Loop(Protocol):
    """What the worker runs. `run` returns soon after `stop`."""

    async def run(self) -> None: ...
    def stop(self) -> None: ...


class Periodic:
    """A pass every so many seconds, however much it found."""

    def __init__(self, once: Callable[[], Awaitable[int]], seconds: float) -> None:
        self._once = once
        self._seconds = seconds
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        while not self._stopped.is_set():
            await self._once()
            await pause(self._stopped, self._seconds)

    def stop(self) -> None:
        self._stopped.set()


class Supervised:
    """A loop with the task that keeps it running."""

    def __init__(self, name: str, loop: Loop) -> None:
        self.name = name
        self._loop = loop
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(
            supervise(self.name, self._loop.run, self._stopped), name=self.name
        )

    async def stop(self) -> None:
        """Waits for the pass it is in, within STOP_SECONDS_MAX."""
        self._stopped.set()
        self._loop.stop()
        if self._task is None:
            return
        _, unfinished = await asyncio.wait([self._task], timeout=STOP_SECONDS_MAX)
        if unfinished:
            logger.warning("%s did not stop in time.", self.name, extra={"action": "loop_cut"})
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CUT_SECONDS_MAX)


class Worker:
    """All loops of one worker process. The engine stays its owner's to close."""

    def __init__(
        self,
        engine: Engine,
        providers: Mapping[str, Provider],
        others: Sequence[tuple[str, Loop]] = (),
    ) -> None:
        """`others` are loops of the shop around the engine, with their names."""
        self._engine = engine
        settings = engine.settings
        assert settings.redis_url is not None
        self._blocking_redis: Redis = connect_redis_blocking(settings.redis_url)
        self.drainer = self._make_drainer()
        self.reaper = Reaper(engine.pool, engine.clock, batch_max=settings.reap_batch_max)
        self.inbox = Inbox(engine.pool, providers)
        self.payer = Payer(
            engine.pool,
            engine.ids,
            providers,
            LateCaptures(engine.pool, engine.inventory, engine.directory),
            capture_with=SANDBOX if SANDBOX in providers else None,
            concurrency_max=settings.pay_concurrency_max,
        )
        self.dispatcher = Dispatcher(engine.pool, engine.inventory, engine.directory)
        gauges = Gauges(engine, self.payer)
        self.pacer = Pacer(engine.redis, engine.clock, self.drainer, gauges, settings)
        fence = Fence(engine.redis, engine.pool, engine.inventory, settings.durability)
        # Producers before consumers: in this order they stop, those of a stage together.
        self._stages = [
            [
                Supervised("Sale sync", Periodic(engine.sales.sync, SYNC_SECONDS)),
                Supervised("Room sync", Periodic(engine.room_control.sync, SYNC_SECONDS)),
                Supervised("Fence watch", Periodic(fence.watch_once, WATCH_SECONDS)),
                Supervised("Gauges", Periodic(gauges.measure_once, GAUGE_SECONDS)),
                Supervised("Pacer", Periodic(self.pacer.measure_once, PACE_SECONDS)),
                Supervised("Reaper", self.reaper),
                *(Supervised(name, loop) for name, loop in others),
            ],
            [Supervised("Drainer", self.drainer)],
            [Supervised("Inbox", self.inbox), Supervised("Payer", self.payer)],
            [Supervised("Dispatcher", self.dispatcher)],
        ]
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Works until `stop`, then ends the loops in order and stores what is left in the streams."""
        for loop in chain.from_iterable(self._stages):
            loop.start()
        await self._stopping.wait()
        await self._wind_down()

    def stop(self) -> None:
        """Makes `run` wind down and return. Idempotent, safe before start."""
        self._stopping.set()

    async def _wind_down(self) -> None:
        for stage in self._stages:
            await asyncio.gather(*(loop.stop() for loop in stage))
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                while await self.drainer.drain_once(block_ms=1):
                    pass
                while await self.dispatcher.dispatch_once():
                    pass
        except (TimeoutError, Unavailable) as error:
            # Streams and outbox keep it: the next start goes on from there.
            logger.warning("Stopped with work left: %s", error, extra={"action": "work_left"})
        finally:
            await self.drainer.close()
            await self._blocking_redis.aclose()

    def _make_drainer(self) -> Drainer:
        settings = self._engine.settings
        url = settings.postgres_url
        assert url is not None
        return Drainer(
            self._blocking_redis,
            lambda: connect(url),
            self._engine.directory,
            self._engine.clock,
            consumer=settings.worker_name,
            batch_max=settings.drain_batch_max,
            connections_max=settings.drain_connections,
            attempts_max=settings.drain_attempts_max,
            claim_idle_seconds=settings.claim_idle_seconds,
        )
