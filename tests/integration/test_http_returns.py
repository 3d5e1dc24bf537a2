"""Returns: asked for by buyers, decided by operators, paid back once."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from api.carriers.protocol import ParcelState
from api.returns.refunds import ReturnRefunds
from api.shipping.tracking import hear
from api.tokens import Role
from engine.servers import EmbeddedValkey
from tests.support.front import SECRET, Reply, Served, serve
from tests.support.parcels import (
    ObedientCarrier,
    Till,
    audited,
    event,
    events_of,
    ship,
    status_of,
)

WISH = {"reason": "damaged", "text": "The glass is cracked.\n屏幕碎了。"}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    carrier = {"carrier_url": "http://127.0.0.1:9", "carrier_secret": SECRET}
    async with serve(valkey.url, postgres_url, **carrier) as served:
        await served.sell(stock={"phone-black": 100}, per_user_max=10)
        yield served


@pytest.fixture
def till(served: Served) -> Till:
    return Till(served)


async def shipped(served: Served, till: Till, key: str = "k") -> str:
    order_id = await till.buy(key=key)
    await ship(served, ObedientCarrier(), order_id)
    return order_id


async def delivered(served: Served, till: Till, key: str = "k") -> str:
    order_id = await till.buy(key=key)
    shipment_id = await ship(served, ObedientCarrier(), order_id)
    async with served.engine.pool.acquire() as connection, connection.transaction():
        await hear(connection, "sandbox", shipment_id, [event(shipment_id, ParcelState.DELIVERED)])
    return order_id


async def ask(served: Served, order_id: str, user: str = "u1", body: object = WISH) -> Reply:
    return await served.post(f"/v1/orders/{order_id}/returns", user=user, body=body)


async def test_goods_come_back_and_so_does_the_money_once(served: Served, till: Till) -> None:
    order_id = await delivered(served, till)
    asked = await ask(served, order_id)
    assert (asked.status, asked.json["state"], asked.json["text"]) == (
        201,
        "requested",
        WISH["text"],
    )
    path = f"/returns/{asked.json['return_id']}"
    early = await served.operate(f"{path}/received")
    assert (early.status, early.code) == (409, "conflict")
    for _ in range(2):  # Saying it again changes nothing.
        approved = await served.operate(f"{path}/approve", {"text": "Send it to Shanghai."})
        assert (approved.status, approved.json["state"]) == (200, "approved")
    assert (await served.operate(f"{path}/reject", {"reason": "no"})).code == "conflict"
    received = await asyncio.gather(*(served.operate(f"{path}/received") for _ in range(3)))
    assert {reply.json["state"] for reply in received} == {"received"}
    await till.settle()
    assert till.provider.calls["refund"] == 1
    shown = (await served.get(f"/v1/orders/{order_id}", user="u1")).json
    assert shown["status"] == "refunded"
    (found,) = shown["returns"]
    assert (found["state"], found["decision"]) == ("refunded", "Send it to Shanghai.")
    assert (await events_of(served, order_id))[-7:] == [
        "return.requested",
        "return.decided",
        "return.received",
        "payment.refunding",
        "payment.refunded",
        "return.refunded",
        "order.refunded",
    ]
    labels = [entry["label"] for entry in shown["timeline"]]
    assert labels[-7:-4] == [
        "You asked to return it",
        "The return was approved",
        "The returned goods arrived",
    ]
    assert (await audited(served))[-3:] == ["approve_return", "receive_return", "refund"]


async def test_of_two_requests_at_once_one_is_open(served: Served, till: Till) -> None:
    order_id = await shipped(served, till)  # On its way is soon enough.
    replies = await asyncio.gather(*(ask(served, order_id) for _ in range(5)))
    assert sorted(reply.status for reply in replies) == [201, 409, 409, 409, 409]
    assert {reply.code for reply in replies} == {None, "not_returnable"}
    assert await served.engine.pool.fetchval("SELECT count(*) FROM returns") == 1


async def test_who_was_rejected_may_ask_again_but_not_for_ever(served: Served, till: Till) -> None:
    order_id = await delivered(served, till)
    await served.engine.pool.execute(
        """
        INSERT INTO users (user_id, email, name, language, email_verified_at)
        VALUES ('u1', 'li@example.com', '李雷', 'zh-CN', now())
        """
    )
    for _ in range(5):
        asked = await ask(served, order_id)
        assert asked.status == 201
        reason = {"reason": "It was used."}
        path = f"/returns/{asked.json['return_id']}/reject"
        rejected = await served.operate(path, reason)
        assert (rejected.json["state"], rejected.json["decision"]) == ("rejected", "It was used.")
    assert (await ask(served, order_id)).code == "not_returnable"
    assert await status_of(served, order_id) == "delivered"
    mails = await served.engine.pool.fetch("SELECT kind, recipient, language, content FROM mails")
    assert len(mails) == 5
    said = {"name": "李雷", "order_id": order_id, "decision": "rejected", "reason": "It was used."}
    assert tuple(mails[0]) == ("return_decided", "li@example.com", "zh-CN", said)


async def test_what_cannot_come_back_is_refused(served: Served, till: Till) -> None:
    paid = await till.buy(key="1")
    assert (await ask(served, paid)).code == "not_returnable"  # Refunded without a return.
    old = await delivered(served, till, "2")
    await served.engine.pool.execute("ALTER TABLE events DISABLE TRIGGER ALL")
    await served.engine.pool.execute("UPDATE events SET at = at - interval '7 days 1 second'")
    late = await ask(served, old)
    assert (late.status, late.code) == (409, "not_returnable")
    assert "more than 7 days" in late.json["detail"]
    refunding = await delivered(served, till, "3")
    await served.operate(f"/payments/{await till.payment_of(refunding)}/refunds")
    assert (await ask(served, refunding)).code == "not_returnable"
    fresh = await delivered(served, till, "4")
    assert (await ask(served, fresh, user="thief")).code == "not_found"
    assert (await ask(served, f"demo.{'0' * 20}")).code == "not_found"
    for body in (
        {},
        {"reason": "because"},
        {"reason": "damaged", "text": "\u0007"},
        {"reason": "damaged", "text": "x" * 2001},
        {"reason": "damaged", "part": 1},
    ):
        reply = await ask(served, fresh, body=body)
        assert (reply.status, reply.code) == (400, "invalid_request"), body


async def test_a_refund_asked_for_by_everybody_at_once_happens_once(
    served: Served, till: Till
) -> None:
    order_id = await delivered(served, till)
    return_id = (await ask(served, order_id)).json["return_id"]
    await served.operate(f"/returns/{return_id}/approve")
    payment_id = await till.payment_of(order_id)
    replies = await asyncio.gather(
        served.operate(f"/returns/{return_id}/received"),
        served.operate(f"/payments/{payment_id}/refunds"),
        served.post(f"/v1/payments/{payment_id}/refunds", user="u1"),
        served.operate(f"/returns/{return_id}/received"),
    )
    # The buyer's own request is either in time or too late; both are fine.
    assert {reply.status for reply in replies} <= {200, 202, 409}
    await till.settle()
    assert await ReturnRefunds(served.engine.pool, served.engine.payments).ask_once() == 0
    assert till.provider.calls["refund"] == 1
    assert await status_of(served, order_id) == "refunded"


async def test_a_refund_that_was_not_asked_for_at_once_is_asked_for_later(
    served: Served, till: Till
) -> None:
    order_id = await delivered(served, till)
    return_id = (await ask(served, order_id)).json["return_id"]
    await served.engine.pool.execute(  # As if the front had died between the two.
        "UPDATE returns SET state = 'received', decided_by = 'op-1' WHERE return_id = $1", return_id
    )
    loop = ReturnRefunds(served.engine.pool, served.engine.payments)
    assert [await loop.ask_once(), await loop.ask_once()] == [1, 0]
    await till.settle()
    assert await status_of(served, order_id) == "refunded"


async def test_operators_go_through_returns_page_by_page(served: Served, till: Till) -> None:
    asked = [
        (await ask(served, await shipped(served, till, str(n)))).json["return_id"] for n in range(3)
    ]
    await served.operate(f"/returns/{asked[1]}/approve")

    async def listed(query: str, role: Role = Role.SUPPORT) -> Reply:
        return await served.get(f"/v1/admin/returns?{query}", user="s1", role=role)

    first = (await listed("limit=2")).json
    second = (await listed(f"limit=2&after={first['next']}")).json
    pages = [each["return_id"] for page in (first, second) for each in page["returns"]]
    assert pages == asked
    assert "next" not in second
    (approved,) = (await listed("state=approved")).json["returns"]
    assert (approved["return_id"], approved["user_id"]) == (asked[1], "u1")
    shown = await served.get(f"/v1/admin/returns/{asked[1]}", user="s1", role=Role.SUPPORT)
    assert shown.json == approved
    assert (await listed("state=lost")).code == "invalid_request"
    assert (await listed("after=x")).code == "invalid_request"
    assert (await listed("", Role.BUYER)).code == "forbidden"
    assert (await served.operate("/returns/ret_none/approve")).code == "not_found"
    denied = await served.post(
        f"/v1/admin/returns/{asked[0]}/approve", user="s1", role=Role.SUPPORT
    )
    assert denied.code == "forbidden"
