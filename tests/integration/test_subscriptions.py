"""Other systems are told of events: signed, at least once, repeated, replayed, given up in sight."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis
from standardwebhooks import Webhook, WebhookVerificationError

from api.http_client import AioHttpClient
from api.subscriptions.loops import (
    CONNECTIONS_MAX,
    EACH_MAX,
    PAUSES_SECONDS,
    Deliverer,
    FanOut,
)
from api.tokens import Role
from engine import metrics
from engine.servers import EmbeddedValkey
from engine.store.database import Pool, connect
from tests.support.front import Served, serve
from tests.support.receiver import Receiver, receiving
from tests.support.waiting import until

OPERATOR: dict[str, Any] = {"user": "op-1", "role": Role.OPERATOR}


@dataclass
class Teller:
    """The loops, one pass at a time."""

    served: Served
    fan_out: FanOut
    deliverer: Deliverer
    receiver: Receiver

    @property
    def pool(self) -> Pool:
        return self.served.engine.pool

    async def subscribe(self, *types: str, **changes: object) -> dict[str, Any]:
        body = {"url": self.receiver.url, "types": types or ("*",)} | changes
        reply = await self.served.operate("/subscriptions", body)
        assert reply.status == 201, reply.body
        made: dict[str, Any] = reply.json
        return made

    async def tell(self) -> int:
        """Everything that is due; how many attempts that took."""
        while await self.fan_out.fan_out_once():
            pass
        attempts = 0
        while made := await self.deliverer.deliver_once():
            attempts += made
        return attempts

    async def happen(self, event_type: str, **data: object) -> int:
        event_id: int = await self.pool.fetchval(
            "INSERT INTO events (type, data) VALUES ($1, $2) RETURNING event_id", event_type, data
        )
        return event_id

    async def let_time_pass(self) -> None:
        """What waits for its next attempt is due."""
        await self.pool.execute("UPDATE deliveries SET due_at = now()")

    async def deliveries(self, made: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
        path = f"/v1/admin/subscriptions/{made['subscription_id']}/deliveries{query}"
        reply = await self.served.get(path, **OPERATOR)
        found: list[dict[str, Any]] = reply.json["deliveries"]
        return found


@pytest.fixture
async def teller(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Teller]:
    async with (
        serve(valkey.url, postgres_url) as served,
        receiving() as receiver,
        AioHttpClient(connections_max=4) as http,
    ):
        engine = served.engine
        yield Teller(
            served,
            FanOut(engine.pool),
            Deliverer(engine.pool, http, engine.clock, Random(1)),
            receiver,
        )


async def test_a_purchase_is_told_signed_and_in_full(teller: Teller) -> None:
    made = await teller.subscribe("order.*", "payment.captured", "stock.sold_out")
    served = teller.served
    await served.sell(stock={"phone-black": 1})
    order_id = (await served.reserve("u1")).json["reservation_id"]
    await served.drain()
    payment = (await served.post(f"/v1/orders/{order_id}/payments", user="u1")).json
    await teller.pool.execute("UPDATE payments SET status = 'captured'")
    await served.engine.orders.cancel(*order_id.split("."), "u1")
    await teller.tell()
    told = {
        message["type"]: message["data"] for message in teller.receiver.messages(made["secret"])
    }
    assert set(told) == {
        "order.created",
        "stock.sold_out",
        "payment.captured",
        "order.cancelled",
    }
    assert told["order.created"]["items"] == {"phone-black": 1}
    assert told["payment.captured"]["payment_id"] == payment["payment_id"]
    assert told["order.cancelled"]["order_id"] == order_id
    assert told["order.cancelled"]["user_id"] == "u1"
    timeline = (await served.get(f"/v1/orders/{order_id}", user="u1")).json["timeline"]
    assert [moment["type"] for moment in timeline].count("order.created") == 1, "told once"
    assert told["stock.sold_out"] == {"sale_id": "demo", "sku": "phone-black", "available": 0}


async def test_each_is_told_what_it_asked_for_and_nothing_else(teller: Teller) -> None:
    await teller.subscribe("order.paid")
    for event_type in ("order.paid", "order.cancelled", "payment.captured"):
        await teller.happen(event_type)
    assert await teller.tell() == 1


async def test_what_happened_before_is_not_told_unless_it_is_replayed(teller: Teller) -> None:
    await teller.happen("order.paid", n=1)
    await teller.tell()
    made = await teller.subscribe()
    assert await teller.tell() == 0
    beyond = {"since": "0001-01-01T00:00:00+12:00"}
    path = f"/subscriptions/{made['subscription_id']}/replays"
    assert (await teller.served.operate(path, beyond)).code == "invalid_request"
    reply = await teller.served.operate(path, {"since": "2020-01-01T00:00:00Z"})
    assert (reply.status, reply.json) == (202, {"events": 1})
    assert await teller.tell() == 1
    # And once more, although it was delivered.
    assert (await teller.served.operate(path, {"since": "2020-01-01T00:00:00Z"})).json[
        "events"
    ] == 1
    assert await teller.tell() == 1
    ids = {headers["webhook-id"] for headers, _ in teller.receiver.got}
    assert len(ids) == 1, "a receiver can tell that it had it"


async def test_an_event_of_a_transaction_that_ends_late_is_not_passed_over(teller: Teller) -> None:
    made = await teller.subscribe()
    slow = await connect(str(teller.served.engine.settings.postgres_url))
    try:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute("INSERT INTO events (type) VALUES ('order.slow')")
        await teller.happen("order.quick")
        await teller.tell()
        await transaction.commit()
    finally:
        await slow.close()
    await teller.tell()
    told = [message["type"] for message in teller.receiver.messages(made["secret"])]
    assert sorted(told) == ["order.quick", "order.slow"]


async def test_a_receiver_that_fails_is_tried_again_later_and_then_given_up_in_sight(
    teller: Teller,
) -> None:
    made = await teller.subscribe()
    teller.receiver.answers = [500] * (len(PAUSES_SECONDS) + 1)
    await teller.happen("order.paid")
    assert await teller.tell() == 1
    assert await teller.tell() == 0, "not at once"
    (waiting,) = await teller.deliveries(made, "?state=waiting")
    assert (waiting["attempts"], waiting["last_status"]) == (1, 500)
    for _ in PAUSES_SECONDS:
        await teller.let_time_pass()
        assert await teller.tell() == 1
    (dead,) = await teller.deliveries(made, "?state=dead")
    assert dead["attempts"] == len(PAUSES_SECONDS) + 1
    assert "said" in dead["last_error"]
    again = await teller.served.operate(f"/deliveries/{dead['delivery_id']}/retry")
    assert again.status == 202
    await teller.tell()
    (delivered,) = await teller.deliveries(made)
    assert (delivered["state"], delivered["attempts"]) == ("delivered", 1)


async def test_who_says_gone_is_told_nothing_more(teller: Teller) -> None:
    made = await teller.subscribe()
    teller.receiver.answers = [410]
    for _ in range(2):
        await teller.happen("order.paid")
        await teller.tell()
    assert len(teller.receiver.got) == 1
    path = f"/v1/admin/subscriptions/{made['subscription_id']}"
    assert (await teller.served.get(path, **OPERATOR)).json["state"] == "gone"


async def test_a_receiver_that_is_away_holds_its_neighbour_up_not_at_all(teller: Teller) -> None:
    urls = (
        "http://127.0.0.1:9/hook",
        f"http://{'a' * 64}.example/",
        "http://h:99999/",
    )
    away = [await teller.subscribe(url=url) for url in urls]
    await teller.subscribe()
    await teller.happen("order.paid")
    await teller.tell()
    assert len(teller.receiver.got) == 1
    for each in away:
        (waiting,) = await teller.deliveries(each)
        assert waiting["state"] == "waiting"
        assert "did not answer" in waiting["last_error"]


async def test_a_receiver_that_never_answers_takes_no_turn_of_its_neighbour(teller: Teller) -> None:
    calls = 0

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    await teller.subscribe(url=f"http://127.0.0.1:{port}/")
    await teller.subscribe()
    for _ in range(3 * EACH_MAX):
        await teller.happen("order.paid")
    await teller.fan_out.fan_out_once()
    async with AioHttpClient(connections_max=CONNECTIONS_MAX) as http:
        deliverer = Deliverer(teller.pool, http, teller.served.engine.clock, Random(1))
        running = asyncio.create_task(deliverer.run())

        async def all_told() -> bool:
            return len(teller.receiver.got) == 3 * EACH_MAX

        await until(all_told, "the neighbour has all of its events")
        assert calls <= EACH_MAX
        deliverer.stop()
        silent.close()
        await http.close()
        await running


async def test_how_long_events_wait_for_a_transaction_that_does_not_end_is_seen(
    teller: Teller,
) -> None:
    await teller.subscribe()
    async with teller.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_current_xact_id()")
        await teller.pool.execute(
            "INSERT INTO events (type, at) VALUES ('order.paid', now() - interval '1 hour')"
        )
        assert await teller.fan_out.fan_out_once() == 0
        assert metrics.events_waited._value.get() >= 3600
    assert await teller.fan_out.fan_out_once() == 1
    assert await teller.fan_out.fan_out_once() == 0
    assert metrics.events_waited._value.get() == 0


async def test_a_paused_subscription_is_told_when_it_is_active_again(teller: Teller) -> None:
    made = await teller.subscribe()
    path = f"/v1/admin/subscriptions/{made['subscription_id']}"
    teller.receiver.answers = [500]
    await teller.happen("order.paid")
    await teller.tell()
    await teller.served.call("PATCH", path, body={"state": "paused"}, **OPERATOR)
    await teller.let_time_pass()
    assert await teller.tell() == 0
    await teller.served.call("PATCH", path, body={"state": "active"}, **OPERATOR)
    assert await teller.tell() == 1


async def test_a_new_secret_signs_at_once_and_the_old_one_for_a_day(teller: Teller) -> None:
    made = await teller.subscribe()
    changed = await teller.served.operate(f"/subscriptions/{made['subscription_id']}/secret")
    secret = changed.json["secret"]
    assert secret != made["secret"]
    await teller.happen("order.paid")
    await teller.tell()
    assert teller.receiver.messages(secret) == teller.receiver.messages(made["secret"])
    await teller.pool.execute("UPDATE subscriptions SET old_secret_until = now()")
    teller.receiver.got.clear()
    await teller.happen("order.paid")
    await teller.tell()
    assert teller.receiver.messages(secret)
    headers, body = teller.receiver.got[0]
    with pytest.raises(WebhookVerificationError):
        Webhook(made["secret"]).verify(body, headers)


async def test_secrets_are_shown_once_and_changes_are_audited_without_them(teller: Teller) -> None:
    made = await teller.subscribe(description="The warehouse")
    path = f"/v1/admin/subscriptions/{made['subscription_id']}"
    shown = (await teller.served.get(path, **OPERATOR)).json
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert (await teller.served.call("DELETE", path, **OPERATOR)).status == 200
    assert (await teller.served.get(path, **OPERATOR)).status == 404
    rows = await teller.pool.fetch("SELECT action, detail::text FROM audit_log ORDER BY entry_id")
    assert [row["action"] for row in rows] == ["subscribed", "unsubscribed"]
    assert all(made["secret"] not in row["detail"] for row in rows)


async def test_what_is_no_subscription_is_refused(teller: Teller) -> None:
    for changes in (
        {"url": "ftp://x"},
        {"url": "https://"},
        {"types": []},
        {"types": ["order paid"]},
        {"types": ["*.paid"]},
        {"description": "x" * 201},
    ):
        body = {"url": teller.receiver.url, "types": ["*"]} | changes
        refused = await teller.served.operate("/subscriptions", body)
        assert refused.code == "invalid_request", changes


async def test_without_subscriptions_new_orders_make_no_events(teller: Teller) -> None:
    await teller.served.sell()
    await teller.served.reserve("u1")
    await teller.served.drain()
    assert await teller.pool.fetchval("SELECT count(*) FROM events") == 0


async def test_two_that_hand_events_on_at_once_hand_on_each_once(teller: Teller) -> None:
    await teller.subscribe()
    for _ in range(20):
        await teller.happen("order.paid")
    others = [FanOut(teller.pool) for _ in range(4)]
    await asyncio.gather(*(other.fan_out_once() for other in others))
    await teller.tell()
    assert len({headers["webhook-id"] for headers, _ in teller.receiver.got}) == 20
    assert len(teller.receiver.got) == 20
