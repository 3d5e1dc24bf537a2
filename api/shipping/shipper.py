"""Asks carriers: for labels, for cancelling, and where parcels are of which nothing was heard.

No connection and no lock is held while a carrier is asked. Whether it took a parcel is never guessed:
a call without an answer is repeated with the same shipment id.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping
from typing import Final

from api.carriers.protocol import Carrier, CarrierRefused, CarrierUnavailable
from api.shipping.shipments import (
    Shipment,
    ShipmentState,
    accept,
    drop,
    keep,
    postpone,
    take_to_ask,
    take_unheard,
)
from api.shipping.tracking import hear
from engine.polling import poll
from engine.store.database import Pool, postgres_errors

logger = logging.getLogger(__name__)

BATCH_MAX: Final = 32  # Calls side by side, of each loop.
LEASE_SECONDS: Final = (
    20.0  # Above the HTTP client's time-out, so that no call is made twice at once.
)
CALL_SECONDS_MAX: Final = 10.0
IDLE_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 0.5  # Doubles with every attempt …
RETRY_SECONDS_MAX: Final = 60.0  # … up to here.
TRACK_AFTER_SECONDS: Final = 600.0  # A parcel that was not heard of by then is asked after.
TRACK_IDLE_SECONDS: Final = 5.0


class Shipper:
    """Serves the wishes for shipments, and for cancelling them."""

    def __init__(self, pool: Pool, carriers: Mapping[str, Carrier]) -> None:
        self._pool = pool
        self._carriers = carriers
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Asks until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.ship_once, self._stopped, IDLE_SECONDS)

    async def ship_once(self) -> int:
        """Asks about a batch at most; returns how many it took."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                taken = await take_to_ask(connection, count=BATCH_MAX, lease_seconds=LEASE_SECONDS)
        await _all(self._serve(shipment, shippable) for shipment, shippable in taken)
        return len(taken)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _serve(self, shipment: Shipment, shippable: bool) -> None:
        wanted = shippable and not shipment.cancel_wanted
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                await (self._create(shipment) if wanted else self._cancel(shipment))
        except CarrierRefused as error:
            await self._refuse(shipment, wanted, str(error))
        except (CarrierUnavailable, TimeoutError) as error:
            await self._later(shipment, str(error) or "The carrier took too long.")

    async def _create(self, shipment: Shipment) -> None:
        label = await self._carrier(shipment).create(shipment.parcel)
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await accept(connection, shipment, label.tracking_number)

    async def _cancel(self, shipment: Shipment) -> None:
        cancelled = await self._carrier(shipment).cancel(shipment.shipment_id)
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if cancelled:
                    await drop(connection, shipment, ShipmentState.CANCELLED, "refunded")
                else:
                    await keep(connection, shipment)

    async def _refuse(self, shipment: Shipment, wanted: bool, why: str) -> None:
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                if wanted:
                    await drop(connection, shipment, ShipmentState.REFUSED, why)
                else:
                    await keep(connection, shipment)

    async def _later(self, shipment: Shipment, why: str) -> None:
        seconds = min(RETRY_SECONDS * 2 ** min(shipment.attempts, 20), RETRY_SECONDS_MAX)
        logger.warning("Shipment %s waits: %s", shipment.shipment_id, why)
        with postgres_errors():
            async with self._pool.acquire() as connection:
                await postpone(connection, [shipment], seconds, why[:500])

    def _carrier(self, shipment: Shipment) -> Carrier:
        carrier = self._carriers.get(shipment.carrier)
        if carrier is None:
            raise CarrierUnavailable(f"There is no carrier {shipment.carrier} any more.")
        return carrier


class Tracker:
    """Asks after parcels of which nothing was heard for a while."""

    def __init__(
        self,
        pool: Pool,
        carriers: Mapping[str, Carrier],
        after_seconds: float = TRACK_AFTER_SECONDS,
    ) -> None:
        self._pool = pool
        self._carriers = carriers
        self._after_seconds = after_seconds
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Asks until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.track_once, self._stopped, TRACK_IDLE_SECONDS)

    async def track_once(self) -> int:
        """Asks after a batch at most; returns how many it took."""
        with postgres_errors():
            async with self._pool.acquire() as connection:
                unheard = await take_unheard(
                    connection, after_seconds=self._after_seconds, count=BATCH_MAX
                )
        await _all(self._track(*each) for each in unheard)
        return len(unheard)

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _track(self, shipment_id: str, name: str) -> None:
        carrier = self._carriers.get(name)
        if carrier is None:
            return  # `Shipper` says so, and the parcel is not lost for it.
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                events = await carrier.track(shipment_id)
        except (CarrierRefused, CarrierUnavailable, TimeoutError) as error:
            logger.warning("Shipment %s cannot be tracked: %s", shipment_id, error)
            return
        own = [event for event in events if event.shipment_id == shipment_id]
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await hear(connection, name, shipment_id, own)


async def _all(calls: Iterable[Awaitable[None]]) -> None:
    """Waits for all of them, then raises the first failure: none is left running."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
