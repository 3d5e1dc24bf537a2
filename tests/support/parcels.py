"""Orders that are paid and sent in tests: a till that obeys, and a carrier that does."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from api.carriers.protocol import (
    CarrierRefused,
    CarrierUnavailable,
    Label,
    Parcel,
    ParcelState,
    TrackingEvent,
)
from api.shipping.shipper import Shipper
from api.tokens import Role
from engine.payment.late import LateCaptures
from engine.payment.payer import Payer
from engine.store.database import Pool
from tests.support.front import Reply, Served
from tests.support.shop import ObedientProvider

ADDRESS = {
    "name": "李雷",
    "phone": "+86 138 0000 0000",
    "country": "CN",
    "region": "上海",
    "city": "上海",
    "street": "南京东路 1 号",
    "postal_code": "200001",
}
PASSES_MAX = 50


class Till:
    """Has orders paid and refunded, by a provider that obeys the test."""

    def __init__(self, served: Served) -> None:
        engine = served.engine
        self.served = served
        self.provider = ObedientProvider()
        self.payer = Payer(
            engine.pool,
            engine.ids,
            {"sandbox": self.provider},
            LateCaptures(engine.pool, engine.inventory, engine.directory),
            capture_with=None,
            concurrency_max=8,
        )

    async def settle(self) -> None:
        """Until the provider has nothing left to do; retries are due at once."""
        for _ in range(PASSES_MAX):
            await self.served.engine.pool.execute("UPDATE outbox SET due_at = now()")
            if not await self.payer.pay_once():
                return
        raise AssertionError("the payer does not come to an end")

    async def buy(self, user: str = "u1", key: str = "k", sale: str = "demo") -> str:
        """The id of a paid order."""
        order_id: str = (await self.served.reserve(user, key=key, sale=sale)).json["reservation_id"]
        await self.served.drain()
        paid = await self.served.post(f"/v1/orders/{order_id}/payments", user=user)
        assert paid.status == 201, paid.body
        await self.settle()
        return order_id

    async def payment_of(self, order_id: str) -> str:
        payment_id: str = await self.served.engine.pool.fetchval(
            "SELECT payment_id FROM payments WHERE reservation_id = $1", order_id.split(".")[1]
        )
        return payment_id


class ObedientCarrier:
    """A carrier whose parcels go where the test says. Idempotent, as a real one."""

    name = "sandbox"

    def __init__(self) -> None:
        self.parcels: dict[str, Parcel] = {}
        self.cancelled: set[str] = set()
        self.told: list[TrackingEvent] = []
        self.calls: Counter[str] = Counter()
        self.down = False
        self.refuses = False
        self.too_late = False  # to cancel
        self.loses_answers = False  # It does what it is asked, and nobody hears of it.
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def create(self, parcel: Parcel) -> Label:
        self.calls["create"] += 1
        self.asked.set()
        await self.may_answer.wait()
        if self.down:
            raise CarrierUnavailable("down")
        if self.refuses or parcel.shipment_id in self.cancelled:
            raise CarrierRefused("no")
        self.parcels[parcel.shipment_id] = parcel
        if self.loses_answers:
            raise CarrierUnavailable("the answer was lost")
        return Label(f"T-{parcel.shipment_id}")

    async def track(self, shipment_id: str) -> list[TrackingEvent]:
        self.calls["track"] += 1
        if self.down:
            raise CarrierUnavailable("down")
        return [event for event in self.told if event.shipment_id == shipment_id]

    async def cancel(self, shipment_id: str) -> bool:
        self.calls["cancel"] += 1
        if self.down:
            raise CarrierUnavailable("down")
        if not self.too_late:
            self.cancelled.add(shipment_id)
            self.parcels.pop(shipment_id, None)
        return not self.too_late

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> TrackingEvent:
        raise AssertionError("webhooks of this carrier are verified by the front")


def event(shipment_id: str, state: ParcelState, number: int | None = None) -> TrackingEvent:
    """What a carrier tells; each state at its time."""
    stage = list(ParcelState).index(state)
    return TrackingEvent(
        event_id=f"{shipment_id}-{stage if number is None else number}",
        shipment_id=shipment_id,
        tracking_number=f"T-{shipment_id}",
        state=state,
        happened_at=datetime(2026, 11, 12, tzinfo=UTC) + timedelta(hours=stage),
        place="上海",
    )


async def send(served: Served, order_id: str, key: str = "s", **body: object) -> Reply:
    """An operator asks for a shipment."""
    return await served.operate(
        f"/orders/{order_id}/shipments",
        {"carrier": "sandbox", "address": ADDRESS} | body,
        idempotency_key=key,
    )


async def ship(served: Served, carrier: ObedientCarrier, order_id: str) -> str:
    """The id of a shipment that the carrier took on."""
    reply = await send(served, order_id)
    assert reply.status == 202, reply.body
    await work(served.engine.pool, carrier)
    shipment_id: str = reply.json["shipment_id"]
    return shipment_id


async def work(pool: Pool, carrier: ObedientCarrier) -> None:
    """The shipper works until it has nothing to do; what waits to be repeated is not waited for."""
    shipper = Shipper(pool, {carrier.name: carrier})
    for _ in range(PASSES_MAX):
        if not await shipper.ship_once():
            return
    raise AssertionError("the shipper does not come to an end")


async def status_of(served: Served, order_id: str) -> str:
    sale_id, reservation_id = order_id.split(".")
    status: str = await served.engine.pool.fetchval(
        "SELECT status FROM orders WHERE sale_id = $1 AND reservation_id = $2",
        sale_id,
        reservation_id,
    )
    return status


async def events_of(served: Served, order_id: str) -> list[str]:
    """The kinds of what happened to an order, in their order."""
    rows = await served.engine.pool.fetch(
        "SELECT type FROM events WHERE reservation_id = $1 ORDER BY event_id",
        order_id.split(".")[1],
    )
    return [row["type"] for row in rows]


async def audited(served: Served) -> list[str]:
    """Which actions the audit log tells of."""
    reply = await served.get("/v1/admin/audit", user="op-1", role=Role.OPERATOR)
    return [entry["action"] for entry in reversed(reply.json["entries"])]
