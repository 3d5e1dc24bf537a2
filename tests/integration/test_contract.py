"""Denied by default: whoever may not call a route learns nothing from it, whatever the route."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from api.answers import Answer, personal
from api.openapi.operations import path_of
from api.routing import Route, add_routes
from api.spec import Access
from api.tokens import Role
from engine.clock import SystemClock
from tests.support.contract import Fitting, FittingCalls, routes_of
from tests.support.front import SECRET, Reply, Served, serve

# Opening a route to those who have no token is done here too, knowingly.
PUBLIC = {
    "GET /v1/sales",
    "GET /v1/sales/{sale}",
    "GET /v1/sales/{sale}/queue/proof",
    # Accounts: whoever calls has no token yet. Each throttles by address, or account, itself.
    "POST /v1/users",
    "POST /v1/users/verification",
    "POST /v1/users/verification/mail",
    "POST /v1/sessions",
    "POST /v1/sessions/refresh",
    "POST /v1/passwords",
    "POST /v1/passwords/reset",
    "GET /v1/oauth/{provider}/login",
    "GET /v1/oauth/{provider}/callback",
    # Others' systems, which sign what they say.
    "POST /v1/webhooks/{provider}",
    "POST /v1/carriers/{carrier}/events",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /docs",
}
VISITOR = {
    "GET /v1/categories",
    "GET /v1/categories/{category}",
    "GET /v1/products",
    "GET /v1/products/{product}",
    "GET /v1/products/{product}/reviews",
    "GET /v1/reviews/{review}",
    "GET /v1/suggestions",
    "GET /v1/exchange-rates",
    "GET /v1/promotions",
    "GET /v1/shipping/methods",
    "GET /v1/payments/providers",
    # A guest's cart, by its signed cookie.
    "GET /v1/cart",
    "DELETE /v1/cart",
    "POST /v1/cart/lines",
    "PUT /v1/cart/lines/{sale}/{sku}",
    "DELETE /v1/cart/lines/{sale}/{sku}",
    "POST /v1/cart/quote",
}

AT_ONCE_MAX = 16


@pytest.fixture
async def served(redis: Redis, valkey, postgres_url: str) -> AsyncIterator[Served]:
    # Whoever is refused is answered at once here: nothing but refusals are asked for.
    async with serve(valkey.url, postgres_url, shed_hold_seconds=0.0) as front:
        assert (await front.get("/readyz")).status == 200
        yield front


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


async def test_routes_without_a_token_are_those_listed_here(served: Served) -> None:
    found = {
        access: {name_of(route) for route in routes_of(served) if route.access is access}
        for access in (Access.PUBLIC, Access.VISITOR)
    }
    assert found == {Access.PUBLIC: PUBLIC, Access.VISITOR: VISITOR}


async def test_nothing_is_served_but_routes(served: Served) -> None:
    """A handler that was put into the router by another way would have no door."""
    told = {(route.method, path_of(route)) for route in routes_of(served)}
    found = {
        (route.method, route.resource.canonical)
        for route in served.server.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert found == told


async def test_nobody_gets_in_without_a_token(served: Served) -> None:
    calls = FittingCalls(served)
    closed = [
        calls.of(route)
        for route in routes_of(served)
        if route.access not in {Access.PUBLIC, Access.VISITOR}
    ]
    assert await _answered_otherwise(served, closed, {}, 401, "unauthenticated") == []


async def test_a_bad_token_is_none_even_where_none_is_needed(served: Served) -> None:
    calls = FittingCalls(served)
    asked = [calls.of(route) for route in routes_of(served) if route.access is not Access.PUBLIC]
    for kind, authorization in bad_tokens(served).items():
        headers = {"Authorization": authorization}
        told = await _answered_otherwise(served, asked, headers, 401, "unauthenticated")
        assert told == [], kind


def bad_tokens(served: Served) -> dict[str, str]:
    """What comes in Authorization, by what is wrong with it."""
    now_s = SystemClock().now_ms() // 1000
    claims = {"sub": "op-1", "role": "operator", "iat": now_s - 10, "exp": now_s + 600}
    good = served.tokens.issue("op-1", Role.OPERATOR)
    return {
        "basic": f"Basic {good}",
        "expired": "Bearer " + jwt.encode({**claims, "exp": now_s - 1}, SECRET, algorithm="HS256"),
        "foreign": "Bearer " + jwt.encode(claims, "b" * 32, algorithm="HS256"),
        "unsigned": "Bearer " + jwt.encode(claims, None, algorithm="none"),
        "torn": f"Bearer {good[:-2]}",
        "of-nobody": "Bearer " + jwt.encode({**claims, "role": "root"}, SECRET, algorithm="HS256"),
    }


async def test_a_role_gets_no_further_than_its_own(served: Served) -> None:
    calls = FittingCalls(served)
    for role, closed in (
        (Role.BUYER, {Access.SUPPORT, Access.OPERATOR}),
        (Role.SUPPORT, {Access.OPERATOR}),
    ):
        asked = [calls.of(route) for route in routes_of(served) if route.access in closed]
        assert asked
        headers = {"Authorization": f"Bearer {served.tokens.issue('somebody', role)}"}
        assert await _answered_otherwise(served, asked, headers, 403, "forbidden") == []


async def _answered_otherwise(
    served: Served, asked: Iterable[Fitting], headers: dict[str, str], status: int, code: str
) -> list[tuple[str, int, str | None]]:
    """The calls that were not answered like that."""
    at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def ask(call: Fitting) -> tuple[str, int, str | None]:
        async with at_once:
            reply = await send(served, call, headers)
        return call.name, reply.status, reply.code

    answered = await asyncio.gather(*map(ask, asked))
    return [each for each in answered if each[1:] != (status, code)]


async def send(served: Served, call: Fitting, headers: dict[str, str]) -> Reply:
    sent = {**call.headers, **headers}
    async with served.session.request(
        call.route.method, served.url + call.path, data=call.data, headers=sent
    ) as got:
        return Reply(got.status, got.headers, await got.read())


async def test_a_route_that_says_nothing_is_for_operators(served: Served) -> None:
    async def handler(*_: object) -> Answer:
        return personal({})

    app = web.Application()
    add_routes(app, served.front, (Route("GET", "/new", handler),))
    async with TestClient(TestServer(app)) as client:
        answers = {}
        for role in Role:
            token = served.tokens.issue("somebody", role)
            async with client.get("/new", headers={"Authorization": f"Bearer {token}"}) as got:
                answers[role] = got.status
        async with client.get("/new") as got:
            assert got.status == 401
    assert answers == {Role.BUYER: 403, Role.SUPPORT: 403, Role.OPERATOR: 200}
