"""Who is let in, over HTTP: priorities, rates by address and account, lists, pace, held answers."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from redis.asyncio import Redis

from engine.admission.access import Verdict
from engine.admission.breaker import IN_A_ROW_MAX
from engine.admission.limit import Priority
from engine.config import LimitKind
from engine.servers import EmbeddedValkey
from tests.support.front import Reply, Served, serve, taken
from tests.support.waiting import until

Serve = Callable[..., AbstractAsyncContextManager[Served]]
BEHIND_PROXY = {"trusted_proxies": "127.0.0.0/8", "unthrottled_networks": "10.0.0.0/8"}
ORDERS = "/v1/orders"


@pytest.fixture(params=[True, False], ids=["gate", "aiohttp"])
def served_with(
    request: pytest.FixtureRequest, redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> Serve:
    """Serves with settings of the test's own, by each door."""
    return lambda **changes: serve(valkey.url, postgres_url, gate=request.param, **changes)


@pytest.fixture
async def served(served_with: Serve) -> AsyncIterator[Served]:
    async with served_with() as served:
        await served.sell(stock={"phone-black": 1000}, per_user_max=100)
        yield served


async def buy(served: Served, user: str, key: str = "k", **headers: str) -> Reply:
    body = {"items": [{"sku": "phone-black", "quantity": 1}]}
    path = "/v1/sales/demo/reservations"
    return await served.post(path, user=user, body=body, idempotency_key=key, **headers)


def told(reply: Reply) -> tuple[int, str | None]:
    return reply.status, reply.code


# Priorities.


async def test_browsing_is_shed_first_and_payments_last(served_with: Serve) -> None:
    async with served_with(in_flight_max=8, limit=LimitKind.FIXED) as served:
        await served.sell()
        made = (await buy(served, "u1")).json["reservation_id"]
        with taken(served, Priority.BROWSE):
            assert told(await served.get("/v1/sales")) == (503, "overloaded")
            assert (await buy(served, "u1")).status == 200
        with taken(served, Priority.RESERVE):
            assert told(await buy(served, "u1")) == (503, "overloaded")
            assert (await served.get(ORDERS, user="u1")).status == 200
            assert (await served.get(f"/v1/reservations/{made}", user="u1")).status == 200
        with taken(served, Priority.PAYMENT):
            assert told(await served.get(ORDERS, user="u1")) == (503, "overloaded")
        assert served.front.limit.in_flight == 0


async def test_those_shed_together_are_told_different_times_to_return(served: Served) -> None:
    with taken(served, Priority.RESERVE):
        replies = await asyncio.gather(*(buy(served, f"u{n}") for n in range(40)))
    assert {told(reply) for reply in replies} == {(503, "overloaded")}
    assert {reply.headers["Retry-After"] for reply in replies} == {"1", "2", "3"}


async def test_shed_answers_are_held_and_a_stop_gives_them(served_with: Serve) -> None:
    async with served_with(shed_hold_seconds=3600) as served:
        await served.sell()
        await buy(served, "u1")  # From now on the sale is known.

        async def all_are_held() -> bool:
            return len(served.front.held) == 5

        with taken(served, Priority.RESERVE):
            calls = [asyncio.create_task(buy(served, f"u{n}")) for n in range(5)]
            await until(all_are_held, "everybody waits")
            assert not any(call.done() for call in calls)
        stopping = asyncio.create_task(served.server.stop())
        replies = await asyncio.wait_for(asyncio.gather(*calls), 10)
        await stopping
    assert {told(reply) for reply in replies} == {(503, "overloaded")}
    assert {reply.headers["Connection"] for reply in replies} == {"close"}


# Rates.


async def test_a_user_over_his_rate_is_told_the_rate(served_with: Serve) -> None:
    async with served_with(throttle_per_second=1, throttle_burst=3) as served:
        await served.sell()
        replies = [await buy(served, "u1", f"k{n}") for n in range(4)]
        assert told(replies[-1]) == (429, "throttled")
        assert replies[-1].headers["RateLimit-Policy"] == '"user";q=3;w=3'
        assert replies[-1].headers["RateLimit"].startswith('"user";r=0;t=')
        assert (await buy(served, "u2")).status == 201


async def test_an_address_over_its_rate_is_refused_whoever_calls(served_with: Serve) -> None:
    async with served_with(**BEHIND_PROXY, address_per_second=1, address_burst=4) as served:
        await served.sell()
        crowd = [
            await buy(served, f"u{n}", x_forwarded_for=f"198.51.100.{n}, 203.0.113.7")
            for n in range(5)
        ]
        assert [reply.status for reply in crowd] == [201] * 4 + [429]
        assert crowd[-1].headers["RateLimit-Policy"].startswith('"address";')
        assert (await buy(served, "u9", x_forwarded_for="203.0.113.8")).status == 201
        # A house has one /64, and an inner network is nobody's in particular.
        house = [f"2001:db8::{n}" for n in range(5)]
        said = [await buy(served, f"h{n}", x_forwarded_for=a) for n, a in enumerate(house)]
        assert [reply.status for reply in said] == [201] * 4 + [429]
        inner = [await buy(served, f"i{n}", x_forwarded_for="10.0.0.7") for n in range(6)]
        assert {reply.status for reply in inner} == {201}


async def test_what_an_untrusted_peer_says_of_its_address_counts_for_nothing(
    served_with: Serve,
) -> None:
    async with served_with(
        unthrottled_networks="", address_per_second=1, address_burst=3
    ) as served:
        await served.sell()
        said = [
            await buy(served, f"u{n}", x_forwarded_for=f"203.0.113.{n}", forwarded="for=192.0.2.1")
            for n in range(4)
        ]
    assert [reply.status for reply in said] == [201] * 3 + [429]


async def test_an_account_is_throttled_before_any_hashing_from_wherever(
    served_with: Serve,
) -> None:
    async with served_with(**BEHIND_PROXY, account_per_minute=1, account_burst=3) as served:
        served.front.passwords.close()  # Whoever gets as far as hashing fails loudly.
        login = {"email": "Ann@shop.example", "password": "wrong password"}
        said = [
            await served.post("/v1/sessions", body=login, x_forwarded_for=f"203.0.113.{n}")
            for n in range(5)
        ]
        assert [reply.status for reply in said] == [500] * 3 + [429] * 2
        other = {"email": "ANN@shop.example", "password": "x"}
        assert told(await served.post("/v1/sessions", body=other)) == (429, "throttled")


# Lists.


async def rule(served: Served, subject: str, verdict: Verdict, **more: Any) -> None:
    control = served.engine.access_control
    await control.add("tester", subject=subject, verdict=verdict, reason="a test", **more)
    await served.engine.access.refresh_once()


async def test_who_is_denied_gets_nothing_and_others_everything(served: Served) -> None:
    assert (await buy(served, "bad")).status == 201
    await rule(served, "user:bad", Verdict.DENY)
    assert told(await buy(served, "bad")) == (403, "forbidden")
    assert told(await served.get(ORDERS, user="bad")) == (403, "forbidden")
    assert (await buy(served, "good")).status == 201
    await served.engine.access_control.remove("tester", subject="user:bad")
    await served.engine.access.refresh_once()
    assert (await buy(served, "bad")).status == 200


async def test_a_rule_of_one_sale_leaves_the_others_alone(served: Served) -> None:
    await served.sell("other", stock={"phone-black": 10})
    await rule(served, "user:bad", Verdict.DENY, sale_id="other")
    assert told(await served.reserve("bad", sale="other")) == (403, "forbidden")
    assert (await buy(served, "bad")).status == 201


async def test_who_is_allowed_knows_no_rate(served_with: Serve) -> None:
    async with served_with(throttle_per_second=1, throttle_burst=2) as served:
        await served.sell(stock={"phone-black": 1000}, per_user_max=100)
        await rule(served, "user:partner", Verdict.ALLOW)
        said = [await buy(served, "partner", f"k{n}") for n in range(8)]
        assert {reply.status for reply in said} == {201}
        assert [(await buy(served, "u1", f"k{n}")).status for n in range(3)] == [201, 201, 429]


async def test_denied_addresses_are_denied_behind_the_proxy(served_with: Serve) -> None:
    async with served_with(**BEHIND_PROXY) as served:
        await served.sell()
        await rule(served, "address:203.0.113.0/24", Verdict.DENY)
        denied = await buy(served, "u1", x_forwarded_for="203.0.113.9")
        assert told(denied) == (403, "forbidden")
        assert (await buy(served, "u1", x_forwarded_for="198.51.100.9")).status == 201


async def test_denied_addresses_register_and_log_in_nowhere_before_any_hashing(
    served: Served,
) -> None:
    await rule(served, "address:127.0.0.1", Verdict.DENY)
    served.front.passwords.close()  # Whoever gets as far as hashing now fails loudly.
    for path in ("/v1/users", "/v1/sessions"):
        reply = await served.post(path, body={"email": "a@b.example", "password": "long enough"})
        assert told(reply) == (403, "forbidden")


# Pace.


async def test_beyond_the_pace_new_reservations_wait_and_nothing_else_does(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (await buy(served, "u1")).json["reservation_id"]
    monkeypatch.setattr(served.engine.pulse, "_meter", None)  # It would be told another pace.
    served.front.meter.set_rate(0.001, 1)
    said = [await buy(served, f"u{n}") for n in range(2, 5)]
    assert [told(reply) for reply in said] == [(201, None)] + [(503, "overloaded")] * 2
    assert int(said[-1].headers["Retry-After"]) > 100
    assert (await served.get(f"/v1/reservations/{made}", user="u1")).status == 200


# Breakers.


async def test_while_redis_is_not_asked_buyers_are_told_that_nothing_was_done(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await buy(served, "u1")
    breaker = served.engine.inventory._breaker
    assert breaker is not None
    for _ in range(IN_A_ROW_MAX):
        breaker.failed()
    monkeypatch.setattr(breaker, "_opens_again_at", math.inf)
    for _ in range(2):
        reply = await buy(served, "u2")
        assert told(reply) == (503, "unavailable")
        assert "nothing was done" in reply.json["detail"]
    assert served.front.limit.in_flight == 0
