"""Buying and waiting where a sale has a room: the same through the gate and through aiohttp."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from engine.admission.breaker import IN_A_ROW_MAX
from engine.admission.room.settings import RoomChanges
from engine.admission.room.store import Entered
from engine.connections import connect_redis
from engine.core import Engine
from engine.keys import room_keys
from engine.model import Outcome
from engine.servers import EmbeddedValkey
from tests.support.front import Reply, Served, serve
from tests.support.rooms import Visitors, open_room
from tests.support.waiting import until

QUEUE = "/v1/sales/demo/queue"


@pytest.fixture(params=[True, False], ids=["gate", "aiohttp"])
async def served(
    request: pytest.FixtureRequest, redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url, gate=request.param) as served:
        await served.sell(stock={"phone-black": 1000}, per_user_max=8)
        yield served


@pytest.fixture
async def visitors(served: Served) -> Visitors:
    return await open_room(served)


async def buy(served: Served, user: str, ticket: str | None, key: str = "k") -> Reply:
    headers = {} if ticket is None else {"queue_ticket": ticket}
    body = {"items": [{"sku": "phone-black", "quantity": 1}]}
    path = "/v1/sales/demo/reservations"
    return await served.post(path, user=user, body=body, idempotency_key=key, **headers)


def told(reply: Reply) -> tuple[int, str | None]:
    return reply.status, reply.code


async def test_a_ticket_whose_number_is_served_buys_once(
    served: Served, visitors: Visitors
) -> None:
    ticket = await visitors.enter("u1")
    await visitors.are_served(1)
    assert told(await buy(served, "u1", ticket)) == (201, None)
    assert told(await buy(served, "u1", ticket, key="k2")) == (403, "ticket_invalid")
    again = await buy(served, "u1", ticket)
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")


async def test_who_bought_before_the_room_was_on_finds_his_reservation_without_a_ticket(
    served: Served,
) -> None:
    first = await buy(served, "u1", None)
    assert first.status == 201
    await open_room(served)
    for _ in range(3):  # On the straight path, too.
        again = await buy(served, "u1", None)
        assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
        assert again.json == first.json
        assert told(await buy(served, "u1", None, key="k2")) == (403, "ticket_required")
        assert told(await buy(served, "u2", None)) == (403, "ticket_required")


async def test_a_crowd_without_tickets_is_refused_without_asking_redis(
    served: Served, visitors: Visitors
) -> None:
    ticket = await visitors.enter("u1")
    await visitors.are_served(1)
    assert (await buy(served, "u1", ticket)).status == 201
    served.front.replays.set_rate(0.001, 1)
    assert (await buy(served, "u1", None)).status == 200  # The last one for a long time.
    for _ in range(3):
        assert told(await buy(served, "u1", None)) == (403, "ticket_required")
        assert (await buy(served, "u1", ticket)).status == 200


async def test_refusals_say_what_helps(served: Served, visitors: Visitors) -> None:
    ticket = await visitors.enter("u1")
    await visitors.are_served(1)
    assert (await buy(served, "u1", ticket)).status == 201
    waiting, expired = visitors.signed("u1", 9000), visitors.signed("u1", 1, seconds=-1)
    for _ in range(3):
        for sent, key, says in (
            (None, "k2", "Take a ticket with POST /v1/sales/{sale}/queue."),
            (waiting, "k2", "Your turn has not come yet."),
            (expired, "k2", "The ticket has expired: take a new one."),
            (ticket, "k2", "This ticket was used for another reservation; take a new one."),
        ):
            assert (await buy(served, "u1", sent, key)).json["detail"] == says
    polled = await served.get(QUEUE, user="u1")
    assert polled.json["detail"] == "Take a ticket with POST /v1/sales/{sale}/queue."


async def test_while_redis_is_not_asked_nobody_waits_to_enter_and_places_are_still_told(
    served: Served, visitors: Visitors, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = await visitors.enter("u1")
    breaker = served.engine.inventory._breaker
    assert breaker is not None
    for _ in range(IN_A_ROW_MAX):
        breaker.failed()
    monkeypatch.setattr(breaker, "_opens_again_at", math.inf)
    assert told(await served.post(QUEUE, user="u2")) == (503, "unavailable")
    assert (await served.get(QUEUE, user="u1", queue_ticket=ticket)).status == 200


async def test_entering_waits_for_redis_no_longer_than_the_deadline(
    served: Served, visitors: Visitors, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def hang(*_: object, **__: object) -> None:
        await never.wait()

    monkeypatch.setattr(served.engine.rooms.store, "enter", hang)
    assert told(await served.post(QUEUE, user="u1")) == (503, "unavailable")
    assert served.front.limit.in_flight == 0


async def test_tickets_that_do_not_help_say_why(served: Served, visitors: Visitors) -> None:
    ticket = await visitors.enter("u1")
    await visitors.are_served(1)
    for _ in range(2):  # The first call is looked up, the second one is known.
        assert told(await buy(served, "u1", None)) == (403, "ticket_required")
        assert told(await buy(served, "u2", ticket)) == (403, "ticket_invalid")
        assert told(await buy(served, "u1", ticket[:-4] + "AAAA")) == (403, "ticket_invalid")
        foreign = visitors.signed("u1", 1, sale="another")
        assert told(await buy(served, "u1", foreign)) == (403, "ticket_invalid")
        early = visitors.signed("u1", 1_000_000)
        assert told(await buy(served, "u1", early)) == (403, "ticket_required")
    assert not await served.engine.inventory.reservations("demo", "u1")


async def test_an_expired_ticket_still_finds_the_reservation_it_made(
    served: Served, visitors: Visitors
) -> None:
    ticket = await visitors.enter("u1")
    await visitors.are_served(1)
    assert (await buy(served, "u1", ticket)).status == 201
    expired = visitors.signed("u1", 1, seconds=-1)
    assert (await buy(served, "u1", expired)).status == 200
    assert told(await buy(served, "u1", expired, key="k2")) == (403, "ticket_required")


async def test_a_poll_shows_the_place_and_the_turn(served: Served, visitors: Visitors) -> None:
    ticket = await visitors.enter("u1")
    await visitors.are_served(1)
    for _ in range(2):
        reply = await served.get(QUEUE, user="u1", queue_ticket=ticket)
        assert (reply.status, reply.json["state"]) == (200, "admitted")
        assert reply.json["number"] == 1
        assert reply.headers["Cache-Control"] == "no-store"
    assert told(await buy(served, "u1", reply.json["ticket"])) == (201, None)


async def test_polls_without_a_good_ticket_say_why(served: Served, visitors: Visitors) -> None:
    ticket = await visitors.enter("u1")
    for _ in range(2):
        assert told(await served.get(QUEUE, user="u1")) == (403, "ticket_required")
        foreign = await served.get(QUEUE, user="u2", queue_ticket=ticket)
        assert told(foreign) == (403, "ticket_invalid")
        assert told(await served.get(QUEUE, queue_ticket=ticket)) == (401, "unauthenticated")
    unknown = await served.get("/v1/sales/nothing/queue", user="u1", queue_ticket=ticket)
    assert told(unknown) == (404, "unknown_sale")


async def test_a_room_that_is_switched_off_keeps_nobody(served: Served, visitors: Visitors) -> None:
    ticket = await visitors.enter("u1")
    assert told(await buy(served, "u2", None)) == (403, "ticket_required")
    await served.engine.room_control.change("demo", "tester", RoomChanges(on=False))
    await served.engine.room_control.sync()

    async def is_open() -> bool:
        reply = await served.get(QUEUE, user="u1", queue_ticket=ticket)
        return bool(reply.json["state"] == "open")

    await until(is_open, "the visitor is sent to buy")

    async def buys() -> bool:
        return (await buy(served, "u2", None)).status in {200, 201}

    await until(buys, "nobody needs a ticket")


async def test_memory_refuses_before_a_ticket_is_looked_at(served: Served) -> None:
    await served.sell("gone", stock={"phone-black": 1}, per_user_max=1)
    assert (await served.reserve("u1", sale="gone")).status == 201
    await open_room(served, "gone")
    known = {(403, "ticket_required"), (409, "all_reserved")}

    async def from_memory() -> bool:
        sale = served.engine.directory.peek("gone")
        if sale is not None:
            served.engine.memory.learnt(sale, Outcome.ALL_RESERVED)
        said = told(await served.reserve("u2", sale="gone"))
        assert said in known
        return said == (409, "all_reserved")

    await until(from_memory, "a hopeless request is refused for what it is")


async def test_a_room_that_redis_lost_is_not_taken_for_none(served: Served, redis: Redis) -> None:
    sale = await served.engine.directory.get("demo")
    assert sale is not None
    await served.engine.room_control.change("demo", "tester", RoomChanges(on=True))
    served.engine.directory.forget("demo")
    await redis.delete(room_keys("demo").room)
    for _ in range(2):  # The first call is looked up, the second one is known.
        assert told(await buy(served, "u1", None)) == (503, "unavailable")
        assert told(await buy(served, "u1", "a.b.c")) == (503, "unavailable")
        assert told(await served.get(QUEUE, user="u1")) == (503, "unavailable")
    assert not await served.engine.inventory.reservations("demo", "u1")
    await served.engine.room_control.sync()

    async def is_asked_for() -> bool:
        return told(await buy(served, "u1", None)) == (403, "ticket_required")

    await until(is_asked_for, "the room is furnished again")


@pytest.fixture
def away() -> Redis:
    """Nobody listens there."""
    return connect_redis("redis://127.0.0.1:9", 1.0)


async def test_who_waits_is_told_what_was_last_known_while_redis_is_away(
    served: Served, visitors: Visitors, away: Redis
) -> None:
    ticket = await visitors.enter("u1")
    await visitors.are_served(1)
    served.engine.rooms.store._redis = away
    for _ in range(2):
        reply = await served.get(QUEUE, user="u1", queue_ticket=ticket)
        assert (reply.status, reply.json["state"], reply.json["number"]) == (200, "admitted", 1)


async def test_a_front_that_never_saw_the_room_says_so_while_redis_is_away(
    served: Served, away: Redis
) -> None:
    await served.engine.room_control.change("demo", "tester", RoomChanges(on=True))
    served.engine.directory.forget("demo")
    served.engine.rooms.store._redis = away
    for _ in range(2):
        assert told(await served.get(QUEUE, user="u1")) == (503, "unavailable")
        assert told(await buy(served, "u1", None)) == (503, "unavailable")
        assert told(await served.post(QUEUE, user="u1")) == (503, "unavailable")


async def test_an_engine_that_closes_answers_whoever_is_entering(
    served: Served, visitors: Visitors
) -> None:
    engine = await Engine.open(served.engine.settings)
    entering = [
        asyncio.create_task(engine.rooms.store.enter("demo", f"u{each}", holds_ticket=False))
        for each in range(300)
    ]
    await asyncio.sleep(0)
    await engine.close()
    assert all(task.done() for task in entering)
    entered = [task.result() for task in entering]
    assert {each.number for each in entered if isinstance(each, Entered)} == set(range(1, 301))


async def test_no_front_is_faster_than_pace_max(valkey: EmbeddedValkey, postgres_url: str) -> None:
    async with serve(valkey.url, postgres_url, pace_max=7) as served:
        await served.engine.pulse.refresh_once()
        assert served.engine.pulse.pace == 7
