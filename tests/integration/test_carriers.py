"""What carriers tell: signed, stored before it is answered, the same however it comes. And the sandbox."""

import asyncio
from collections.abc import AsyncIterator
from itertools import permutations
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from api.carriers.client import SandboxCarrier
from api.carriers.depot import Depot
from api.carriers.protocol import CarrierRefused, CarrierUnavailable, Parcel, ParcelState
from api.carriers.registry import make_carriers
from api.carriers.sandbox import CarrierDesk, run_carrier
from api.http_client import AioHttpClient
from api.shipping.shipper import Shipper, Tracker
from api.up.port import free_port
from engine.clock import ManualClock, SystemClock
from engine.config import Settings
from engine.errors import ConfigError
from engine.payment.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from engine.servers import EmbeddedValkey
from tests.support.front import SECRET, Reply, Served, serve
from tests.support.parcels import (
    ADDRESS,
    ObedientCarrier,
    Till,
    event,
    events_of,
    send,
    ship,
    status_of,
)
from tests.support.waiting import until

CARRIER_SECRET = "what-the-carrier-and-the-shop-know"
PATH = "/v1/carriers/sandbox/events"


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    url = f"http://127.0.0.1:{free_port()}"
    carrier = {"carrier_url": url, "carrier_secret": CARRIER_SECRET}
    async with serve(valkey.url, postgres_url, **carrier) as served:
        await served.sell(stock={"phone-black": 100}, per_user_max=10)
        yield served


async def tell(
    served: Served, shipment_id: str, state: ParcelState, *, secret: str = CARRIER_SECRET
) -> Reply:
    body = msgspec.json.encode(event(shipment_id, state))
    headers = sign(secret, body, served.engine.clock.now_ms())
    return await served.post(PATH, data=body, **headers)


async def shown(served: Served, order_id: str, language: str = "en") -> dict[str, object]:
    reply = await served.get(f"/v1/orders/{order_id}", user="u1", accept_language=language)
    found: dict[str, object] = reply.json
    return found


async def test_told_in_any_order_and_twice_it_comes_to_the_same(served: Served) -> None:
    till, carrier = Till(served), ObedientCarrier()
    orders = [list(order) for order in permutations(ParcelState)]
    for number, order in enumerate(orders[::6]):  # One that begins with each state.
        order_id = await till.buy(user=f"u{number}", key="k")
        shipment_id = await ship(served, carrier, order_id)
        for state in (*order, *order):
            assert (await tell(served, shipment_id, state)).json == {"received": True}
        assert await status_of(served, order_id) == "delivered"
        reply = await served.get(f"/v1/orders/{order_id}", user=f"u{number}")
        (parcel,) = reply.json["shipments"]
        assert parcel["state"] == "delivered"
        assert [each["state"] for each in parcel["tracking"]] == list(ParcelState)
        moves = [kind for kind in await events_of(served, order_id) if kind == "order.delivered"]
        assert len(moves) == 1, order


async def test_all_events_at_once_deliver_the_order_once(served: Served) -> None:
    till, carrier = Till(served), ObedientCarrier()
    order_id = await till.buy()
    shipment_id = await ship(served, carrier, order_id)
    told = [tell(served, shipment_id, state) for state in (*ParcelState, *ParcelState)]
    assert {reply.status for reply in await asyncio.gather(*told)} == {200}
    events = await events_of(served, order_id)
    assert (events.count("order.shipped"), events.count("order.delivered")) == (1, 1)


async def test_a_parcel_that_arrives_before_its_label_was_stored_is_delivered(
    served: Served,
) -> None:
    till, carrier = Till(served), ObedientCarrier()
    order_id = await till.buy()
    carrier.loses_answers = True
    shipment_id = await ship(served, carrier, order_id)
    assert await status_of(served, order_id) == "paid"
    assert (await tell(served, shipment_id, ParcelState.DELIVERED)).status == 200
    assert await status_of(served, order_id) == "delivered"
    # The label comes after all, and changes nothing.
    carrier.loses_answers = False
    await served.engine.pool.execute("UPDATE shipments SET due_at = now()")
    assert await Shipper(served.engine.pool, {"sandbox": carrier}).ship_once() == 0
    assert [kind for kind in await events_of(served, order_id) if kind.startswith("order.")] == [
        "order.paid",
        "order.shipped",
        "order.delivered",
    ]


async def test_forged_stale_changed_and_strange_events_are_refused(served: Served) -> None:
    till, carrier = Till(served), ObedientCarrier()
    order_id = await till.buy()
    shipment_id = await ship(served, carrier, order_id)
    good = msgspec.json.encode(event(shipment_id, ParcelState.DELIVERED))
    beyond = good.replace(b"2026-11-12T03:00:00Z", b"9999-12-31T23:59:59-12:00")
    assert beyond != good
    now_ms = served.engine.clock.now_ms()
    for headers, body in (
        ({}, good),
        (sign("somebody else's secret", good, now_ms), good),
        (sign(CARRIER_SECRET, good, now_ms - 600_000), good),
        (sign(CARRIER_SECRET, good, now_ms + 600_000), good),
        (sign(CARRIER_SECRET, good, now_ms), good + b" "),
        (sign(CARRIER_SECRET, beyond, now_ms), beyond),
        (sign(CARRIER_SECRET, good, now_ms) | {TIMESTAMP_HEADER: "soon"}, good),
        (sign(CARRIER_SECRET, good, now_ms) | {SIGNATURE_HEADER: "00"}, good),
        (sign(CARRIER_SECRET, b"{", now_ms), b"{"),
        (sign(CARRIER_SECRET, b"\xff", now_ms), b"\xff"),
        (sign(CARRIER_SECRET, odd := good.replace(b"delivered", b"lost"), now_ms), odd),
    ):
        reply = await served.post(PATH, data=body, **headers)
        assert (reply.status, reply.code) == (401, "webhook_refused"), (headers, body)
    assert (await tell(served, "shp_none", ParcelState.DELIVERED)).code == "not_found"
    assert (await served.post("/v1/carriers/pigeon/events", data=good)).code == "not_found"
    assert await status_of(served, order_id) == "shipped"
    assert await served.engine.pool.fetchval("SELECT count(*) FROM tracking_events") == 0


async def test_a_parcel_that_nobody_tells_of_is_asked_after(served: Served) -> None:
    till, carrier, pool = Till(served), ObedientCarrier(), served.engine.pool
    order_id = await till.buy()
    shipment_id = await ship(served, carrier, order_id)
    carrier.told = [event(shipment_id, state) for state in list(ParcelState)[:2]]
    tracker = Tracker(pool, {"sandbox": carrier}, after_seconds=60)
    assert await tracker.track_once() == 0  # It was heard of a moment ago.
    await pool.execute("UPDATE shipments SET heard_at = now() - interval '61 s'")
    carrier.down = True
    assert await tracker.track_once() == 1
    carrier.down = False
    assert await tracker.track_once() == 0  # The others' turn.
    await pool.execute("UPDATE shipments SET heard_at = now() - interval '61 s'")
    assert await tracker.track_once() == 1
    (parcel,) = (await shown(served, order_id))["shipments"]  # type: ignore[misc]
    assert parcel["state"] == "in_transit"
    assert await status_of(served, order_id) == "shipped"


# The sandbox carrier: a server of its own.


async def test_a_sandbox_parcel_goes_from_the_shop_to_the_buyer(
    served: Served, tmp_path: Path
) -> None:
    engine, stopped = served.engine, asyncio.Event()
    settings = msgspec.structs.replace(
        engine.settings, data_dir=str(tmp_path), public_url=served.url, carrier_step_seconds=0.02
    )
    serving = asyncio.create_task(run_carrier(settings, stopped))
    async with AioHttpClient(connections_max=2) as http:
        shipper = Shipper(engine.pool, make_carriers(settings, http, engine.clock))
        shipping = asyncio.create_task(shipper.run())
        order_id = await Till(served).buy()
        assert (await send(served, order_id)).status == 202

        async def is_delivered() -> bool:
            return await status_of(served, order_id) == "delivered"

        await until(is_delivered, "the parcel arrives")
        (parcel,) = (await shown(served, order_id, "zh-CN"))["shipments"]  # type: ignore[misc]
        assert parcel["tracking_number"] == "SB0000000001"
        assert [each["label"] for each in parcel["tracking"]] == [
            "快递已揽收",
            "运输中",
            "派送中",
            "包裹已送达",
        ]
        assert parcel["tracking"][-1]["place"] == ADDRESS["city"]
        shipper.stop()
        await shipping
    stopped.set()
    await serving


class Wire:
    """A sandbox carrier without its webhooks, and its client."""

    def __init__(self, depot: Depot, clock: ManualClock, http: AioHttpClient, url: str) -> None:
        self.depot = depot
        self.clock = clock
        self.carrier = SandboxCarrier(http, url, CARRIER_SECRET, clock)
        self.stranger = SandboxCarrier(http, url, "somebody else's secret", clock)


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    from aiohttp.test_utils import TestServer

    clock, depot = ManualClock(SystemClock().now_ms()), Depot(tmp_path / "carrier.sqlite3")
    desk = CarrierDesk(depot, clock, CARRIER_SECRET, step_seconds=10)
    async with AioHttpClient(connections_max=2) as http, TestServer(desk.make_app()) as server:
        yield Wire(depot, clock, http, str(server.make_url("")).rstrip("/"))
    depot.close()


def parcel(shipment_id: str, grams: int = 500) -> Parcel:
    return Parcel(shipment_id, "shop.x", ADDRESS, grams)


async def test_a_sandbox_parcel_is_made_once_and_moves_by_the_clock(wire: Wire) -> None:
    label = await wire.carrier.create(parcel("shp_1"))
    assert await wire.carrier.create(parcel("shp_1")) == label
    assert await wire.carrier.create(parcel("shp_2")) != label
    for stages in range(5):
        events = await wire.carrier.track("shp_1")
        assert [each.state for each in events] == list(ParcelState)[:stages]
        wire.clock.advance(seconds=10)
    assert await wire.carrier.track("shp_none") == []
    with pytest.raises(CarrierRefused, match="30000"):
        await wire.carrier.create(parcel("shp_3", grams=30_001))
    with pytest.raises(CarrierUnavailable, match="401"):
        await wire.stranger.create(parcel("shp_4"))


async def test_what_was_cancelled_is_never_carried_and_what_was_picked_up_is(wire: Wire) -> None:
    await wire.carrier.create(parcel("shp_1"))
    await wire.carrier.create(parcel("shp_2"))
    assert await wire.carrier.cancel("shp_1")
    assert await wire.carrier.cancel("shp_3")  # Its creation is still on its way.
    for cancelled in ("shp_1", "shp_3"):
        with pytest.raises(CarrierRefused):
            await wire.carrier.create(parcel(cancelled))
    wire.clock.advance(seconds=10)
    assert not await wire.carrier.cancel("shp_2")
    assert len(await wire.carrier.track("shp_2")) == 1
    assert await wire.carrier.track("shp_1") == []
    assert [kept.shipment_id for kept in await wire.depot.due(wire.clock.now_ms(), 10)] == ["shp_2"]


async def test_a_carrier_without_its_settings_does_not_start() -> None:
    with pytest.raises(ConfigError, match="CARRIER_URL"):
        await run_carrier(Settings(), asyncio.Event())


async def test_a_shop_without_a_carrier_says_so(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> None:
    async with serve(valkey.url, postgres_url, secret=SECRET) as served:
        assert (await served.post(PATH, data=b"{}")).code == "not_found"
        reply = await send(served, f"demo.{'0' * 20}")
        assert "there is no such carrier" in reply.json["detail"]
