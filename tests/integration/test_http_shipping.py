"""Shipping methods, the fulfilment queue, shipments: what operators do, and what buyers see of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from api.carriers.protocol import ParcelState
from api.shipping.seed import METHODS, seed_shipping
from api.shipping.shipper import Shipper
from api.shipping.tracking import hear
from api.tokens import Role
from engine.servers import EmbeddedValkey
from engine.store.payments import lock_orders_of_payments, start_refund
from tests.support.front import SECRET, Reply, Served, serve
from tests.support.parcels import (
    ADDRESS,
    ObedientCarrier,
    Till,
    audited,
    event,
    events_of,
    send,
    ship,
    status_of,
    work,
)
from tests.support.waiting import until

METHOD = {
    "name": {"en": "Slow boat", "zh-CN": "慢船"},
    "carrier": "sandbox",
    "zones": [
        {
            "country": "*",
            "days_min": 30,
            "days_max": 90,
            "fees": [
                {
                    "currency": "CNY",
                    "first_grams": 1000,
                    "first_minor": 500,
                    "step_grams": 1000,
                    "step_minor": 100,
                }
            ],
        }
    ],
}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    carrier = {"carrier_url": "http://127.0.0.1:9", "carrier_secret": SECRET}
    async with serve(valkey.url, postgres_url, **carrier) as served:
        await served.sell(stock={"phone-black": 100}, per_user_max=10)
        yield served


@pytest.fixture
def till(served: Served) -> Till:
    return Till(served)


@pytest.fixture
def carrier() -> ObedientCarrier:
    return ObedientCarrier()


async def operate(served: Served, method: str, path: str, body: object = None) -> Reply:
    return await served.call(method, f"/v1/admin{path}", user="op-1", role=Role.OPERATOR, body=body)


async def queue(served: Served, query: str = "") -> list[str]:
    page = (await operate(served, "GET", f"/fulfilment?{query}")).json
    return [order["order_id"] for order in page["orders"]]


async def anyone_waits(served: Served) -> bool:
    """Whether some transaction waits for a lock."""
    return bool(
        await served.engine.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
    )


async def seeded(served: Served) -> None:
    async with served.engine.pool.acquire() as connection:
        assert await seed_shipping(connection) == len(METHODS)
        assert await seed_shipping(connection) == 0  # Once more changes nothing.


async def check_out(served: Served, order_id: str, method: str = "standard") -> None:
    """Writes the terms of a checkout, as the cart does."""
    sale_id, reservation_id = order_id.split(".")
    await served.engine.pool.execute(
        """
        INSERT INTO checkouts (sale_id, reservation_id, user_id, idempotency_key, request_hash,
                               amount_minor, currency, quote, address, shipping_method, language,
                               state)
        VALUES ($1, $2, 'u1', $2, '', 129900, 'CNY', '{"total_minor": 129900}', $3, $4, 'zh-CN', 'placed')
        """,
        sale_id,
        reservation_id,
        ADDRESS,
        method,
    )


# Methods and fees.


# 1 kg and two further ones begun; free from 99 CNY; far away nothing is free.
FEES = [
    (
        "country=CN&region=Shanghai&weight_grams=2500&currency=CNY",
        "zh-CN",
        [("standard", "标准快递", 1200), ("next-day", "次日达", 4400)],
    ),
    (
        "country=CN&weight_grams=2500&currency=CNY&subtotal_minor=9900",
        "en",
        [("standard", "Standard", 0), ("next-day", "Next day", 4400)],
    ),
    (
        "country=CN&region=XINJIANG&weight_grams=900&currency=CNY&subtotal_minor=9900",
        "en",
        [("standard", "Standard", 1800)],
    ),
    (
        "country=US&region=Texas&weight_grams=1000&currency=USD",
        "fr",
        [("standard", "Standard", 590), ("next-day", "Next day", 2490)],
    ),
    (
        "country=FR&weight_grams=1001&currency=USD",
        "en",
        [("standard", "Standard", 2390), ("next-day", "Next day", 7490)],
    ),
    ("country=CN&weight_grams=30001&currency=CNY", "en", []),
    ("country=CN&weight_grams=1&currency=EUR", "en", []),
]


async def test_methods_and_fees_are_those_of_the_most_specific_zone(served: Served) -> None:
    await seeded(served)
    for query, language, told in FEES:
        reply = await served.get(f"/v1/shipping/methods?{query}", accept_language=language)
        found = [
            (method["method_id"], method["name"], method["fee"]["amount_minor"])
            for method in reply.json["methods"]
        ]
        assert found == told, query


async def test_an_unfit_question_names_its_parameter(served: Served) -> None:
    for query, field in (
        ("weight_grams=1&currency=CNY", "country"),
        ("country=cn&weight_grams=1&currency=CNY", "country"),
        ("country=CN&weight_grams=-1&currency=CNY", "weight_grams"),
        ("country=CN&weight_grams=1.5&currency=CNY", "weight_grams"),
        ("country=CN&weight_grams=1&currency=yuan", "currency"),
        ("country=CN&weight_grams=1&currency=CNY&region=%0A", "region"),
        ("country=CN&weight_grams=1&currency=CNY&colour=red", "colour"),
    ):
        reply = await served.get(f"/v1/shipping/methods?{query}")
        assert (reply.status, reply.code) == (400, "invalid_request"), query
        assert field in reply.json["detail"]


async def test_an_operator_makes_changes_and_withdraws_a_method(served: Served) -> None:
    path = "/shipping/methods/slow-boat"
    made = await operate(served, "PUT", path, METHOD)
    assert (made.status, made.json["name"]) == (201, METHOD["name"])
    assert (await operate(served, "GET", path)).json == made.json
    dearer: dict[str, Any] = METHOD | {"position": 7}
    changed = await operate(served, "PUT", path, dearer)
    assert (changed.status, changed.json["position"]) == (200, 7)
    listed = (await operate(served, "GET", "/shipping/methods")).json["methods"]
    assert [method["method_id"] for method in listed] == ["slow-boat"]
    question = "/v1/shipping/methods?country=NZ&weight_grams=1500&currency=CNY"
    (offered,) = (await served.get(question)).json["methods"]
    assert (offered["fee"]["amount_minor"], offered["days_max"]) == (600, 90)
    withdrawn = await operate(served, "DELETE", path)
    assert (withdrawn.status, withdrawn.json["active"]) == (200, False)
    assert (await served.get(question)).json == {"methods": []}
    assert (await audited(served))[-3:] == [
        "put_shipping_method",
        "put_shipping_method",
        "withdraw_shipping_method",
    ]


async def test_unfit_methods_are_refused_and_change_nothing(served: Served) -> None:
    for body in (
        {},
        METHOD | {"zones": []},
        METHOD | {"carrier": "pigeon"},
        METHOD | {"colour": "red"},
        METHOD | {"zones": [*METHOD["zones"], *METHOD["zones"]]},  # type: ignore[misc]
        METHOD | {"position": -1},
        METHOD | {"name": {"en": "two\nlines"}},
    ):
        reply = await operate(served, "PUT", "/shipping/methods/slow-boat", body)
        assert (reply.status, reply.code) == (400, "invalid_request"), body
    for path in ("/shipping/methods/slow-boat", "/shipping/methods/Slow_Boat"):
        assert (await operate(served, "GET", path)).code == "not_found"
        assert (await operate(served, "DELETE", path)).code == "not_found"


async def test_only_those_who_may_change_and_send(served: Served, till: Till) -> None:
    order_id = await till.buy()
    for method, path, role in (
        ("GET", "/fulfilment", Role.SUPPORT),
        ("PUT", "/shipping/methods/x", Role.SUPPORT),
        ("DELETE", "/shipping/methods/x", Role.BUYER),
        ("GET", "/shipping/methods", Role.BUYER),
        ("POST", f"/orders/{order_id}/shipments", Role.SUPPORT),
        ("GET", f"/orders/{order_id}/shipments", Role.BUYER),
    ):
        reply = await served.call(method, f"/v1/admin{path}", user="u1", role=role)
        assert (reply.status, reply.code) == (403, "forbidden"), path


# The queue.


async def test_the_queue_is_what_is_paid_oldest_first_page_by_page(
    served: Served, till: Till
) -> None:
    await served.sell("other", stock={"phone-black": 5})
    first, second = await till.buy(key="1"), await till.buy(key="2")
    other = await till.buy(sale="other")
    await check_out(served, second, "next-day")
    unpaid = (await served.reserve("u1", key="4")).json["reservation_id"]
    await served.drain()
    assert await queue(served) == [first, second, other]
    assert unpaid not in await queue(served)
    assert await queue(served, "sale=other") == [other]
    assert await queue(served, "method=next-day") == [second]
    page = (await operate(served, "GET", "/fulfilment?limit=2")).json
    (queued,) = [order for order in page["orders"] if order["order_id"] == second]
    assert (queued["address"], queued["method_id"]) == (ADDRESS, "next-day")
    assert queued["lines"] == [{"sku": "phone-black", "name": "phone-black", "quantity": 1}]
    assert await queue(served, f"limit=2&after={page['next']}") == [other]


async def test_what_is_being_sent_or_refunded_is_not_in_the_queue(
    served: Served, till: Till, carrier: ObedientCarrier
) -> None:
    sent, refused, refunding, waits = [await till.buy(key=str(n)) for n in range(4)]
    await send(served, sent)
    await served.post(f"/v1/payments/{await till.payment_of(refunding)}/refunds", user="u1")
    assert await queue(served) == [refused, waits]
    carrier.refuses = True
    await send(served, refused)
    assert await queue(served) == [waits]
    await work(served.engine.pool, carrier)
    assert await queue(served) == [sent, refused, waits]  # Both may be sent otherwise.


# Sending.


async def test_an_order_is_shipped_once_the_carrier_has_accepted(
    served: Served, till: Till, carrier: ObedientCarrier
) -> None:
    await seeded(served)
    order_id = await till.buy()
    await check_out(served, order_id)
    asked = await served.operate(f"/orders/{order_id}/shipments", {}, idempotency_key="s")
    assert (asked.status, asked.json["state"]) == (202, "requested")
    assert (asked.json["carrier"], asked.json["method_id"]) == ("sandbox", "standard")
    assert await status_of(served, order_id) == "paid"
    await work(served.engine.pool, carrier)
    again = await served.operate(f"/orders/{order_id}/shipments", {}, idempotency_key="s")
    assert (again.status, again.json["state"]) == (200, "created")
    assert again.json["tracking_number"] == f"T-{asked.json['shipment_id']}"
    assert carrier.parcels[asked.json["shipment_id"]].address == ADDRESS
    shown = (await served.get(f"/v1/orders/{order_id}", user="u1")).json
    assert shown["status"] == "shipped"
    (parcel,) = shown["shipments"]
    assert (parcel["state"], parcel["carrier"]) == ("created", "sandbox")
    assert (await events_of(served, order_id))[-2:] == ["order.shipped", "shipment.created"]
    assert (await audited(served))[-2:] == ["request_shipment", "ship"]


async def test_what_cannot_be_sent_is_refused(
    served: Served, till: Till, carrier: ObedientCarrier
) -> None:
    paid = await till.buy(key="1")
    path = f"/orders/{paid}/shipments"
    for body, key in (
        ({"carrier": "pigeon"}, "s"),
        ({"carrier": "sandbox", "method_id": "none"}, "s"),
        ({"carrier": "sandbox", "address": ADDRESS | {"name": "\u0007"}}, "s"),
        ({"carrier": "sandbox", "address": {"city": "上海"}}, "s"),
        ({"carrier": "sandbox"}, "é"),
        ({"carrier": "sandbox", "weight": 1}, "s"),
    ):
        reply = await served.operate(path, body, idempotency_key=key)
        assert (reply.status, reply.code) == (400, "invalid_request"), body
    assert (await served.operate(path, {"carrier": "sandbox"})).code == "invalid_request"
    # Bought in a sale, without a cart: nobody knows where it goes, or by whom.
    for lacking in ({"carrier": "sandbox"}, {"address": ADDRESS}):
        reply = await served.operate(path, lacking, idempotency_key="s")
        assert (reply.status, reply.code) == (409, "not_shippable"), lacking
    await served.engine.pool.execute(
        "INSERT INTO shipping_methods (method_id, name, carrier) VALUES ('old', '{}', 'pigeon')"
    )
    old = await served.operate(path, {"method_id": "old", "address": ADDRESS}, idempotency_key="s")
    assert (old.code, "no carrier pigeon" in old.json["detail"]) == ("not_shippable", True)
    unpaid = (await served.reserve("u1", key="2")).json["reservation_id"]
    assert (await send(served, unpaid)).code == "not_found"  # Not stored yet.
    await served.drain()
    assert (await send(served, unpaid)).code == "not_shippable"
    assert (await send(served, f"demo.{'0' * 20}")).code == "not_found"
    assert (await send(served, paid)).status == 202
    assert (await send(served, paid, postal="1")).code == "invalid_request"
    changed = await send(served, paid, address=ADDRESS | {"city": "北京"})
    assert (changed.status, changed.code) == (422, "idempotency_mismatch")


async def test_of_two_operators_one_sends_the_order(
    served: Served, till: Till, carrier: ObedientCarrier
) -> None:
    order_id = await till.buy()
    replies = await asyncio.gather(*(send(served, order_id, key=f"op-{n}") for n in range(6)))
    assert sorted(reply.status for reply in replies) == [202, 409, 409, 409, 409, 409]
    shippers = [Shipper(served.engine.pool, {"sandbox": carrier}) for _ in range(3)]
    assert sum(await asyncio.gather(*(shipper.ship_once() for shipper in shippers))) == 1
    assert len(carrier.parcels) == 1
    assert (await events_of(served, order_id)).count("order.shipped") == 1


async def test_a_carrier_that_is_away_is_asked_again_for_the_same_parcel(
    served: Served, till: Till, carrier: ObedientCarrier
) -> None:
    order_id = await till.buy()
    carrier.loses_answers = True
    shipment_id = await ship(served, carrier, order_id)
    assert await status_of(served, order_id) == "paid"
    listed = await operate(served, "GET", f"/orders/{order_id}/shipments")
    (waiting,) = listed.json["shipments"]
    assert (waiting["state"], waiting["attempts"]) == ("requested", 1)
    assert "lost" in waiting["detail"]
    carrier.loses_answers = False
    await served.engine.pool.execute("UPDATE shipments SET due_at = now()")
    await work(served.engine.pool, carrier)
    assert await status_of(served, order_id) == "shipped"
    assert set(carrier.parcels) == {shipment_id}


async def test_a_refused_parcel_can_be_sent_otherwise(
    served: Served, till: Till, carrier: ObedientCarrier
) -> None:
    order_id = await till.buy()
    carrier.refuses = True
    await ship(served, carrier, order_id)
    assert await status_of(served, order_id) == "paid"
    carrier.refuses = False
    assert (await send(served, order_id, key="other")).status == 202
    await work(served.engine.pool, carrier)
    assert await status_of(served, order_id) == "shipped"
    listed = await operate(served, "GET", f"/orders/{order_id}/shipments")
    assert [each["state"] for each in listed.json["shipments"]] == ["refused", "created"]


# Shipping against refunds: no parcel leaves for money that went back, if it can still be helped.


async def test_an_order_whose_refund_is_asked_for_is_not_sent(
    served: Served, till: Till, carrier: ObedientCarrier
) -> None:
    order_id = await till.buy()
    payment = f"/v1/payments/{await till.payment_of(order_id)}/refunds"
    refund, sending = await asyncio.gather(served.post(payment, user="u1"), send(served, order_id))
    assert refund.status == 202
    assert sending.code in {None, "not_shippable"}
    await work(served.engine.pool, carrier)
    assert carrier.parcels == {}
    await till.settle()
    assert await status_of(served, order_id) == "refunded"
    assert till.provider.calls["refund"] == 1
    assert (await send(served, order_id, key="again")).code == "not_shippable"


async def test_who_waits_for_a_refund_to_be_asked_for_sees_that_it_was(
    served: Served, till: Till
) -> None:
    sending, returning = await till.buy(key="1"), await till.buy(key="2")
    await ship(served, ObedientCarrier(), returning)
    wish = {"reason": "other"}
    for order_id, call in (
        (sending, lambda: send(served, sending)),
        (returning, lambda: served.post(f"/v1/orders/{returning}/returns", user="u1", body=wish)),
    ):
        async with served.engine.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            payment_id = await till.payment_of(order_id)
            await lock_orders_of_payments(connection, [payment_id])
            waiting = asyncio.create_task(call())
            await until(lambda: anyone_waits(served), "it waits for the order")
            assert await start_refund(connection, payment_id, "asked for")
            await transaction.commit()
        refused = await waiting
        assert refused.status == 409, refused.body
        assert "refunded" in refused.json["detail"]


@pytest.mark.parametrize("too_late", [False, True])
async def test_a_refund_that_overtakes_the_carriers_answer_stops_the_parcel(
    served: Served, till: Till, carrier: ObedientCarrier, too_late: bool
) -> None:
    order_id = await till.buy()
    carrier.may_answer.clear()
    carrier.too_late = too_late
    assert (await send(served, order_id)).status == 202
    shipping = asyncio.create_task(work(served.engine.pool, carrier))
    await carrier.asked.wait()
    payment = f"/v1/payments/{await till.payment_of(order_id)}/refunds"
    assert (await served.post(payment, user="u1")).status == 202
    carrier.may_answer.set()
    await shipping
    assert carrier.calls["cancel"] == 1
    assert len(carrier.parcels) == int(too_late)
    # What could not be stopped is shipped, and says so; the money goes back all the same.
    assert await status_of(served, order_id) == ("shipped" if too_late else "paid")
    await till.settle()
    assert await status_of(served, order_id) == "refunded"
    listed = await operate(served, "GET", f"/orders/{order_id}/shipments")
    (shipment,) = listed.json["shipments"]
    assert shipment["state"] == ("created" if too_late else "cancelled")


async def test_a_refund_of_a_shipped_order_calls_the_parcel_back_before_it_is_picked_up(
    served: Served, till: Till, carrier: ObedientCarrier
) -> None:
    waits, gone = await till.buy(key="1"), await till.buy(key="2")
    parcels = {order: await ship(served, carrier, order) for order in (waits, gone)}
    async with served.engine.pool.acquire() as connection, connection.transaction():
        told = event(parcels[gone], ParcelState.PICKED_UP)
        assert await hear(connection, "sandbox", parcels[gone], [told])
    for order in (waits, gone):
        reply = await served.operate(f"/payments/{await till.payment_of(order)}/refunds")
        assert reply.status == 202
    await till.settle()
    await work(served.engine.pool, carrier)
    assert carrier.cancelled == {parcels[waits]}
    assert {await status_of(served, order) for order in (waits, gone)} == {"refunded"}
    assert "shipment.cancelled" in await events_of(served, waits)
