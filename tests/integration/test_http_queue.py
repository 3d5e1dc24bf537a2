"""The door of the waiting room over HTTP: tickets, proofs, screening, and the draw's proof."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest
from altcha import v1 as altcha
from redis.asyncio import Redis

from api.queue.challenges import CHALLENGE_SECONDS, ChallengeBody, Challenges
from api.tokens import Role
from engine.admission.access import Verdict
from engine.admission.room.draw import Finding, verify
from engine.clock import ManualClock, SystemClock
from engine.config import LimitKind
from engine.keys import room_keys
from engine.servers import EmbeddedValkey
from tests.support.front import SECRET, Reply, Served, serve
from tests.support.service import Service, service
from tests.support.waiting import until

QUEUE = "/v1/sales/demo/queue"


@pytest.fixture(params=[True, False], ids=["gate", "aiohttp"])
def gate(request: pytest.FixtureRequest) -> bool:
    """Whether the gate stands before aiohttp: both doors lead into the same room."""
    return bool(request.param)


@pytest.fixture
async def served(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str, gate: bool
) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url, gate=gate) as served:
        yield served


async def furnish(served: Served, **settings: Any) -> None:
    """Changes the room of `demo`, as an operator."""
    path = "/v1/admin/sales/demo/admission"
    reply = await served.call("PATCH", path, user="op-1", role=Role.OPERATOR, body=settings)
    assert reply.status == 200, reply.body


async def sell(served: Served, *, opens_in: float = 600, **settings: Any) -> None:
    """A sale that opens in a while, with a room that gives tickets already."""
    await served.sell(opens_in=opens_in)
    await furnish(served, **{"on": True} | settings)


async def enter(served: Served, user: str = "u1", ticket: str | None = None, **body: Any) -> Reply:
    headers = {} if ticket is None else {"queue_ticket": ticket}
    return await served.post(QUEUE, user=user, body=body or None, **headers)


async def prove(served: Served, user: str = "u1") -> str:
    """A proof of work, as a visitor's page does it."""
    asked = await served.get(f"{QUEUE}/challenge", user=user)
    assert asked.status == 200, asked.body
    return solve(asked.json)


def solve(made: dict[str, Any]) -> str:
    names = ("algorithm", "challenge", "salt", "signature")
    found = altcha.solve_challenge(
        made["challenge"], made["salt"], made["algorithm"], made["maxnumber"]
    )
    assert found is not None
    answer = {name: made[name] for name in names} | {"number": found.number}
    return base64.b64encode(json.dumps(answer).encode()).decode()


def solved(made: ChallengeBody) -> str:
    return solve({name: getattr(made, name) for name in made.__struct_fields__})


async def forget_user(redis: Redis, user: str = "u1") -> None:
    await redis.hdel(room_keys("demo").tickets, user)


async def age_number(redis: Redis, user: str = "u1") -> None:
    """The user's number was given long ago, and nobody polled with it since."""
    tickets = room_keys("demo").tickets
    record = await redis.hget(tickets, user)
    assert record is not None
    await redis.hset(tickets, user, record.split()[0] + b" 1000")


def fields(reply: Reply) -> list[str]:
    assert (reply.status, reply.code) == (400, "invalid_request"), reply.body
    return [error["field"] for error in reply.json["errors"]]


# Tickets.


async def test_where_there_is_no_room_everybody_may_go_and_buy(served: Served) -> None:
    await served.sell()
    reply = await enter(served)
    assert (reply.status, reply.json["state"]) == (200, "open")
    assert "Queue-Ticket" not in reply.headers
    assert (await served.reserve("u1")).status == 201


async def test_a_visitor_has_one_number_however_often_he_comes(served: Served) -> None:
    await sell(served)
    first = await enter(served)
    assert (first.status, first.json["state"], first.json["number"]) == (201, "prequeue", 1)
    assert first.headers["Queue-Ticket"] == first.json["ticket"]
    assert first.headers["Cache-Control"] == "no-store"
    again = await enter(served)
    assert (again.status, again.json["number"]) == (200, 1)
    other = await enter(served, "u2")
    assert (other.status, other.json["number"]) == (201, 2)


async def test_a_crowd_at_the_door_gets_one_number_each(served: Served) -> None:
    await sell(served)
    crowd = [f"u{position % 100}" for position in range(300)]  # Everybody clicks three times.
    replies = await asyncio.gather(*(enter(served, user) for user in crowd))
    numbers: dict[str, set[int]] = {}
    for user, reply in zip(crowd, replies, strict=True):
        numbers.setdefault(user, set()).add(reply.json["number"])
    assert sorted(number for (number,) in numbers.values()) == list(range(1, 101))
    assert sum(reply.status == 201 for reply in replies) == 100


async def test_tickets_are_given_from_the_pre_queue_until_the_end(served: Served) -> None:
    await sell(served, opens_in=2000, prequeue_seconds=900)
    early = await enter(served)
    assert (early.status, early.code) == (425, "not_started")
    assert 1000 < int(early.headers["Retry-After"]) <= 1100
    await furnish(served, prequeue_seconds=3600)
    assert (await enter(served)).status == 201
    await served.operate("/sales/demo/close")
    over = await enter(served, "u2")
    assert (over.status, over.code) == (410, "sale_ended")


async def test_the_door_knows_callers_sales_and_bodies(served: Served) -> None:
    await sell(served)
    assert (await served.post(QUEUE)).code == "unauthenticated"
    assert (await served.post("/v1/sales/nope/queue", user="u1")).code == "unknown_sale"
    assert fields(await enter(served, colour="red")) == ["colour"]
    assert fields(await enter(served, altcha=7)) == ["altcha"]
    assert fields(await enter(served, captcha="x" * 10_000)) == ["captcha"]
    assert (await enter(served)).json["number"] == 1  # Nobody was given a number meanwhile.


async def test_a_place_is_kept_for_whoever_brings_a_ticket_that_is_good(
    served: Served, redis: Redis
) -> None:
    await sell(served)
    ticket = (await enter(served)).json["ticket"]
    await age_number(redis)
    kept = await enter(served, ticket=ticket)
    assert (kept.status, kept.json["number"]) == (200, 1)


async def bad_tickets(served: Served) -> dict[str, str]:
    """Tickets for number 1 of u1 that are not good."""
    genuine = (await enter(served)).json["ticket"]
    foreign = (await enter(served, "u2")).json["ticket"]
    now_s = SystemClock().now_ms() // 1000
    sign = served.engine.rooms.tickets.sign
    other_sale = sign("other", "u1", 1, now_s, now_s + 300, -1, False)
    expired = sign("demo", "u1", 1, now_s - 400, now_s - 100, -1, False)
    head, claims, signature = genuine.split(".")
    return {
        "forged": ".".join((head, claims, signature[::-1])),
        "changed": ".".join((head, claims[:-2] + "AA", signature)),
        "foreign": foreign,
        "of another sale": other_sale.decode(),
        "expired": expired.decode(),
        "nothing": "x",
        "odd": "é",
        "long": "x" * 7000,
    }


async def test_a_ticket_that_is_not_good_keeps_no_place(served: Served, redis: Redis) -> None:
    await sell(served)
    last = 2
    for name, ticket in (await bad_tickets(served)).items():
        await age_number(redis)
        reply = await enter(served, ticket=ticket)
        assert reply.status == 201, name
        assert reply.json["number"] > last, name
        last = reply.json["number"]


async def test_entering_again_and_again_keeps_no_admission_for_ever(
    served: Served, redis: Redis
) -> None:
    await sell(served, opens_in=-10)
    first = (await enter(served)).json["ticket"]

    async def admitted() -> bool:
        return bool((await served.get(QUEUE, user="u1", queue_ticket=first)).json["position"] == 0)

    await until(admitted, "u1 is admitted")
    shown = await served.get(QUEUE, user="u1", queue_ticket=first)
    now_s = served.engine.clock.now_ms() // 1000
    key = served.engine.rooms.tickets
    ending = key.sign("demo", "u1", 1, now_s - 100, now_s + 20, 0, True).decode()
    over = key.sign("demo", "u1", 1, now_s - 100, now_s, 0, True).decode()

    again = await enter(served, ticket=ending)
    renewed = key.read(again.json["ticket"].encode())
    assert (again.status, again.json["number"]) == (200, shown.json["number"])
    assert renewed is not None
    assert renewed.expires_s == now_s + 20
    late = await enter(served, ticket=over)
    assert (late.status, late.json["number"]) == (201, 2)


async def test_whose_time_to_reserve_is_over_goes_to_the_back_without_a_ticket_as_well(
    served: Served, redis: Redis
) -> None:
    await sell(served, opens_in=-10, pace_max=1)
    assert (await enter(served)).status == 201
    await redis.hset(room_keys("demo").room, "lapsed", 1)

    async def lapsed() -> bool:
        sale = await served.engine.directory.get("demo")
        assert sale is not None
        room = served.engine.rooms.peek(sale)
        return room is not None and room.lapsed == 1 <= room.serving

    await until(lapsed, "the time to reserve is over")
    late = await enter(served)
    assert (late.status, late.json["number"]) == (201, 2)
    assert (await enter(served)).json["number"] == 2


async def test_switching_the_room_off_and_on_loses_nobody(served: Served) -> None:
    await sell(served)
    ticket = (await enter(served)).json["ticket"]
    await enter(served, "u2")
    await furnish(served, on=False)
    assert (await enter(served, ticket=ticket)).json["state"] == "open"
    await furnish(served, on=True)
    held = await enter(served, "u2")  # Whose page forgot its ticket.
    assert (held.status, held.json["number"]) == (200, 2)
    back = await enter(served, ticket=ticket)
    assert (back.status, back.json["number"]) == (200, 1)
    assert (await enter(served, "u3")).json["number"] == 3


async def test_a_room_that_redis_does_not_know_yet_is_not_taken_for_none(
    served: Served, redis: Redis
) -> None:
    await sell(served)
    await redis.delete(room_keys("demo").room)
    reply = await enter(served)
    assert (reply.status, reply.code) == (503, "unavailable")
    await redis.hdel(room_keys("demo").room, "revision")
    assert await served.engine.room_control.sync() == 1
    assert (await enter(served)).status == 201


# Proofs of work.


async def test_a_proof_of_work_is_asked_for_and_taken(served: Served) -> None:
    await sell(served, proof_difficulty=200)
    assert fields(await enter(served)) == ["altcha"]
    made = await enter(served, altcha=await prove(served))
    assert (made.status, made.json["number"]) == (201, 1)


async def test_challenges_are_given_some_minutes_before_tickets_are(served: Served) -> None:
    await sell(served, opens_in=2000, prequeue_seconds=900, proof_difficulty=200)
    early = await served.get(f"{QUEUE}/challenge", user="u1")
    assert (early.status, early.code) == (425, "not_started")
    assert int(early.headers["Retry-After"]) <= 500
    await furnish(served, prequeue_seconds=1600)  # From in 400 s on.
    proof = await prove(served)
    assert (await enter(served, altcha=proof)).code == "not_started"
    await furnish(served, prequeue_seconds=3600)
    assert (await enter(served, altcha=proof)).status == 201
    assert (await served.get(f"{QUEUE}/challenge")).code == "unauthenticated"
    await served.operate("/sales/demo/close")
    assert (await served.get(f"{QUEUE}/challenge", user="u1")).code == "sale_ended"


async def bad_proofs(served: Served) -> dict[str, str]:
    """Proofs that are worth nothing to u1."""
    now = SystemClock().now_ms()
    long_ago = Challenges(SECRET, ManualClock(now - CHALLENGE_SECONDS * 1000 - 1000))
    strangers = Challenges("t" * 32, SystemClock())
    ours = Challenges(SECRET, SystemClock())
    asked = {"difficulty": 50, "counts_from_ms": 0}
    genuine = json.loads(base64.b64decode(await prove(served)))
    wrong = json.dumps(genuine | {"number": genuine["number"] + 1})
    return {
        "forged": base64.b64encode(wrong.encode()).decode(),
        "of another shop": solved(strangers.make("demo", "u1", **asked)),
        "foreign": await prove(served, "u2"),
        "of another sale": solved(ours.make("other", "u1", **asked)),
        "expired": solved(long_ago.make("demo", "u1", **asked)),
        "nothing": "x",
    }


async def test_a_proof_that_is_worth_nothing_is_refused(served: Served) -> None:
    await sell(served, proof_difficulty=200)
    said = set()
    for name, proof in (await bad_proofs(served)).items():
        reply = await enter(served, altcha=proof)
        assert fields(reply) == ["altcha"], name
        said.add(reply.json["detail"])
    assert len(said) == 4  # Forged, foreign, expired, none at all: each is told.
    assert (await enter(served, altcha=await prove(served))).json["number"] == 1


async def test_a_proof_is_good_for_one_number(served: Served, redis: Redis) -> None:
    await sell(served, proof_difficulty=200)
    proof = await prove(served)
    assert (await enter(served, altcha=proof)).json["number"] == 1
    assert (await enter(served, altcha=proof)).json["number"] == 1  # His answer got lost: the same.
    await forget_user(redis)
    reply = await enter(served, altcha=proof)
    assert fields(reply) == ["altcha"]
    assert "used before" in reply.json["detail"]


async def test_a_proof_shown_many_times_at_once_counts_once(served: Served) -> None:
    await sell(served, proof_difficulty=200)
    proof = await prove(served)
    replies = await asyncio.gather(*(enter(served, altcha=proof) for _ in range(20)))
    assert {reply.json["number"] for reply in replies} == {1}
    assert sum(reply.status == 201 for reply in replies) == 1


async def test_what_was_refused_is_counted_by_its_reason(served: Served) -> None:
    await sell(served, proof_difficulty=200)
    await enter(served)

    async def is_counted() -> bool:
        told = (await served.get("/metrics")).body.decode()
        return 'doorbuster_refused_total{reason="altcha"}' in told

    await until(is_counted, "the refusal is counted")


async def test_a_ticket_spares_the_second_proof_and_nothing_else_does(served: Served) -> None:
    await sell(served, proof_difficulty=200)
    ticket = (await enter(served, altcha=await prove(served))).json["ticket"]
    assert (await enter(served, ticket=ticket)).json["number"] == 1
    for name, bad in (await bad_tickets_of_a_prover(served, ticket)).items():
        assert fields(await enter(served, ticket=bad)) == ["altcha"], name


async def bad_tickets_of_a_prover(served: Served, genuine: str) -> dict[str, str]:
    foreign = (await enter(served, "u2", altcha=await prove(served, "u2"))).json["ticket"]
    return {"forged": genuine[:-4] + "AAAA", "foreign": foreign}


# Who is let in.


async def rule(served: Served, subject: str, verdict: Verdict) -> None:
    await served.engine.access_control.add("tester", subject=subject, verdict=verdict)
    await served.engine.access.refresh_once()


async def test_whom_operators_allow_needs_no_proof_and_whom_they_deny_gets_nothing(
    served: Served,
) -> None:
    await sell(served, proof_difficulty=200)
    await rule(served, "user:friend", Verdict.ALLOW)
    await rule(served, "user:foe", Verdict.DENY)
    assert (await enter(served, "friend")).status == 201
    refused = await enter(served, "foe", altcha=await prove_directly("foe"))
    assert (refused.status, refused.code) == (403, "forbidden")


async def prove_directly(user: str) -> str:
    challenges = Challenges(SECRET, SystemClock())
    return solved(challenges.make("demo", user, difficulty=50, counts_from_ms=0))


@pytest.fixture
async def asked() -> AsyncIterator[Service]:
    async with service() as made:
        yield made


@pytest.fixture
async def screened(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str, gate: bool, asked: Service
) -> AsyncIterator[Served]:
    settings = {"risk_url": asked.url, "captcha_url": asked.url, "captcha_secret": "shh"}
    async with serve(valkey.url, postgres_url, gate=gate, **settings) as served:
        yield served


async def test_whom_the_risk_service_denies_gets_no_ticket(
    screened: Served, asked: Service
) -> None:
    await sell(screened)
    asked.says = {"verdict": "deny"}
    refused = await enter(screened)
    assert (refused.status, refused.code) == (403, "forbidden")
    asked.says = {"verdict": "allow"}
    assert (await enter(screened)).json["number"] == 1
    told = json.loads(asked.asked[-1][1])
    assert (told["user_id"], told["sale_id"]) == ("u1", "demo")
    assert told["user_agent"]


async def test_the_risk_service_is_told_of_any_user_agent(screened: Served, asked: Service) -> None:
    await sell(screened)
    asked.says = {"verdict": "allow"}
    token = screened.tokens.issue("u1")
    async with await screened.raw() as connection:
        head = f"POST {QUEUE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        connection.send(head.encode() + b"User-Agent: \xffbot\r\n\r\n")
        assert b" 201 " in (await connection.answer())[:14]
    assert json.loads(asked.asked[-1][1])["user_agent"] == "\ufffdbot"


async def test_whom_the_risk_service_challenges_has_to_work(
    screened: Served, asked: Service
) -> None:
    await sell(screened)
    asked.says = {"verdict": "challenge"}
    assert fields(await enter(screened)) == ["altcha"]
    made = await enter(screened, altcha=await prove_directly("u1"))
    assert (made.status, made.json["number"]) == (201, 1)


async def test_a_captcha_is_asked_for_and_verified(screened: Served, asked: Service) -> None:
    await sell(screened, captcha=True)
    asked.says = {"verdict": "allow", "success": False}
    assert fields(await enter(screened)) == ["captcha"]
    assert asked.asked == []  # Nobody is bothered for a call that lacks something.
    assert fields(await enter(screened, captcha="wrong")) == ["captcha"]
    asked.says = {"verdict": "allow", "success": True}
    assert (await enter(screened, captcha="right")).status == 201
    assert b"response=right" in asked.asked[-1][1]


async def test_whom_operators_allow_nobody_else_is_asked_about(
    screened: Served, asked: Service
) -> None:
    await sell(screened, captcha=True)
    asked.says = {"verdict": "deny", "success": False}
    await rule(screened, "user:u1", Verdict.ALLOW)
    assert (await enter(screened)).status == 201
    assert asked.asked == []


async def test_a_risk_service_that_must_be_heard_keeps_the_door_shut_while_it_fails(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str, asked: Service
) -> None:
    asked.status = 500
    async with serve(valkey.url, postgres_url, risk_url=asked.url, risk_required=True) as served:
        await sell(served)
        reply = await enter(served)
        assert (reply.status, reply.code) == (503, "unavailable")
        asked.status, asked.says = 200, {"verdict": "allow"}
        assert (await enter(served)).json["number"] == 1


async def test_waiting_for_the_risk_service_takes_no_place_from_others(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str, gate: bool, asked: Service
) -> None:
    asked.silent, asked.says = True, {"verdict": "allow"}
    one_at_a_time = {"limit": LimitKind.FIXED, "in_flight_min": 1, "in_flight_max": 1}
    async with serve(
        valkey.url,
        postgres_url,
        gate=gate,
        risk_url=asked.url,
        risk_seconds_max=60.0,
        **one_at_a_time,
    ) as served:
        await sell(served)
        waits = asyncio.create_task(enter(served))

        async def is_asked() -> bool:
            return bool(asked.asked)

        await until(is_asked, "the risk service is asked")
        assert (await served.get("/v1/sales/demo")).status == 200
        assert not waits.done()
        asked.end()
        assert (await waits).status == 201


# The draw.


async def test_a_draw_is_committed_to_before_and_can_be_recomputed_after(served: Served) -> None:
    await sell(served, order="draw")
    tickets = {user: (await enter(served, user)).json for user in ("u1", "u2", "u3", "u4")}
    assert tickets["u1"]["position"] is None  # Nobody has a place yet.
    before = (await served.get(f"{QUEUE}/proof")).json
    assert (before["order"], before["seed"], before["drawn"]) == ("draw", None, None)
    assert len(before["seed_hash"]) == 64

    await served.operate("/sales/demo/open", {"now": True})

    async def places() -> dict[int, int] | None:
        found = {}
        for user, ticket in tickets.items():
            headers = {"queue_ticket": ticket["ticket"]}
            proof = (await served.get(f"{QUEUE}/proof", user=user, **headers)).json
            if proof["place"] is None or proof["seed"] is None:
                return None
            found[proof["number"]] = proof["place"]
        return found

    drawn = await until(places, "the draw")
    after = (await served.get(f"{QUEUE}/proof")).json
    assert (
        after["seed_hash"]
        == before["seed_hash"]
        == sha256(bytes.fromhex(after["seed"])).hexdigest()
    )
    assert (after["number"], after["place"], after["drawn"]) == (None, None, 4)
    assert sorted(drawn) == sorted(drawn.values()) == [1, 2, 3, 4]
    for number, place in drawn.items():
        found = verify(bytes.fromhex(after["seed"]), before["seed_hash"], 4, number, place)
        assert found.finding is Finding.HONEST
    late = await enter(served, "u5")
    assert late.json["number"] == 5
    shown = await served.get(f"{QUEUE}/proof", queue_ticket=late.json["ticket"])
    assert (shown.json["number"], shown.json["place"]) == (5, 5)


async def test_a_ticket_of_another_sale_names_no_place(served: Served) -> None:
    await sell(served, order="draw")
    now_s = SystemClock().now_ms() // 1000
    other = served.engine.rooms.tickets.sign("other", "u1", 1, now_s, now_s + 300, -1, False)
    shown = await served.get(f"{QUEUE}/proof", queue_ticket=other.decode())
    assert (shown.status, shown.json["number"], shown.json["place"]) == (200, None, None)


async def test_a_sale_that_never_had_a_room_has_no_draw_to_prove(served: Served) -> None:
    await served.sell()
    shown = (await served.get(f"{QUEUE}/proof")).json
    assert await served.engine.rooms.refresh_once() == 0, "no room is followed for it"
    assert (shown["order"], shown["seed_hash"], shown["seed"]) == ("fifo", "", None)
    assert (await served.get("/v1/sales/nope/queue/proof")).code == "unknown_sale"
