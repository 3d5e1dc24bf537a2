"""What belongs to one buyer is neither read nor changed by another, whatever route is tried with its id.

Every part of a path is either of something owned, of which this test makes one, or is listed as nobody's:
a route with a new kind of id fails here until somebody says which it is.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Final

import pytest
from redis.asyncio import Redis

from api.openapi.operations import PART
from api.routing import Route
from api.spec import Access
from api.tokens import Role
from tests.support.contract import FittingCalls, routes_of
from tests.support.front import Reply, Served, serve
from tests.support.owned import EMAIL, SECRETS, own_one_of_each, register

# Ids of what is the shop's, or everybody's.
NOBODYS: Final = {
    "sale",
    "sku",
    "product",
    "category",
    "provider",
    "carrier",
    "currency",
    "code",  # Whoever knows a coupon's code may claim it.
    "promotion",
    "rule",
    "method",
    "subscription",
    "delivery",
    "shipment",
    "reconciliation",
    "user",
}
# What is meant to be done with what others wrote.
MEANT: Final = {
    "GET /v1/reviews/{review}",
    "PUT /v1/reviews/{review}/vote",
    "DELETE /v1/reviews/{review}/vote",
}


@pytest.fixture
async def served(redis: Redis, valkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(
        valkey.url,
        postgres_url,
        shed_hold_seconds=0.0,
        anonymous_per_second=10_000,
        anonymous_burst=10_000,
    ) as front:
        yield front


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def parts_of(path: str) -> list[str]:
    return [part["name"] for part in PART.finditer(path)]


async def test_no_buyer_reads_or_changes_what_is_anothers(served: Served) -> None:
    calls = FittingCalls(served)
    owner = await register(served, EMAIL, "Zebulon Quist")
    other = await register(served, "mallory@example.com", "Mallory")
    owned = await own_one_of_each(served, owner)
    unknown = (
        {name for route in routes_of(served) for name in parts_of(route.path)}
        - NOBODYS
        - owned.keys()
    )
    assert unknown == set(), "Make one in own_one_of_each, or say in NOBODYS that it is nobody's."
    ids = {owner, *owned.values()}
    before, shown_before = await kept_of(served, ids), await shown_to(served, owner, owned)
    assert before
    assert (
        sum(reply.status == 200 for reply in shown_before.values()) >= 4
    )  # of what can be looked at alone

    found = []
    for route in routes_of(served):
        if name_of(route) in MEANT or not set(parts_of(route.path)) & owned.keys():
            continue
        reply = await try_as(served, other, calls, route, owned)
        if reply.status < 400 or tells(reply, ids - set(owned.values())):
            found.append((name_of(route), reply.status, reply.body))
    assert found == []
    assert await kept_of(served, ids) == before
    after = await shown_to(served, owner, owned)
    assert {path: reply.body for path, reply in after.items()} == {
        path: reply.body for path, reply in shown_before.items()
    }


async def test_no_list_of_ones_own_shows_what_is_anothers(served: Served) -> None:
    calls = FittingCalls(served)
    owner = await register(served, EMAIL, "Zebulon Quist")
    other = await register(served, "mallory@example.com", "Mallory")
    owned = await own_one_of_each(served, owner)
    told = []
    for route in routes_of(served):
        if route.method != "GET" or parts_of(route.path) or route.access is not Access.CALLER:
            continue
        reply = await try_as(served, other, calls, route, {})
        assert reply.status < 500, (name_of(route), reply.body)
        if tells(reply, {owner, *owned.values()}):
            told.append((name_of(route), reply.body))
    assert told == []


async def test_an_id_of_anothers_in_a_body_is_none(served: Served) -> None:
    """Where a call names a thing in its body: an address at the checkout, for one."""
    owner = await register(served, EMAIL, "Zebulon Quist")
    other = await register(served, "mallory@example.com", "Mallory")
    owned = await own_one_of_each(served, owner)
    bodies = [
        ("POST", "/v1/cart/checkout", {"address_id": owned["address"], "idempotent": None}),
        ("POST", "/v1/cart/quote", {"address_id": owned["address"]}),
    ]
    await served.post(
        "/v1/cart/lines", user=other, body={"sale_id": "demo", "sku": "phone-black", "quantity": 1}
    )
    for method, path, body in bodies:
        fit = {name: value for name, value in body.items() if value is not None}
        reply = await served.call(method, path, user=other, body=fit, idempotency_key="k-1")
        assert reply.status >= 400, (path, reply.body)
        assert not tells(reply, {owner}), (path, reply.body)


async def try_as(
    served: Served, user: str, calls: FittingCalls, route: Route, owned: Mapping[str, str]
) -> Reply:
    """The route as another buyer would call it, with the owner's ids."""
    call = calls.of(route, owned)
    token = served.tokens.issue(user, Role.BUYER)
    headers = {**call.headers, "Authorization": f"Bearer {token}"}
    async with served.session.request(
        route.method, served.url + call.path, data=call.data, headers=headers
    ) as got:
        return Reply(got.status, got.headers, await got.read())


def tells(reply: Reply, ids: set[str]) -> bool:
    """Whether an answer says anything that is the owner's. Ids that were asked for may be repeated."""
    text = reply.body.decode("utf-8", "replace")
    return any(secret in text for secret in (*SECRETS, *ids))


async def kept_of(served: Served, ids: set[str]) -> dict[str, list[str]]:
    """Every row of every table that names the owner or what is the owner's."""
    parts = {part for each in ids for part in each.split(".")[-1:]}
    kept = {}
    async with served.engine.pool.acquire() as connection:
        tables = await connection.fetch(
            "SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'"
        )
        for table in (row["name"] for row in tables):
            rows = await connection.fetch(f"SELECT t::text AS row FROM {table} t ORDER BY 1")
            mine = [row["row"] for row in rows if any(part in row["row"] for part in parts)]
            if mine:
                kept[table] = mine
    return kept


async def shown_to(served: Served, owner: str, owned: Mapping[str, str]) -> dict[str, Reply]:
    """What the owner sees of each thing that can be looked at alone."""
    shown = {}
    for route in routes_of(served):
        names = parts_of(route.path)
        if route.method != "GET" or not names or set(names) - owned.keys():
            continue
        if route.access in {Access.CALLER, Access.SELF}:
            path = PART.sub(lambda part: owned[part["name"]], route.path)
            shown[path] = await served.get(path, user=owner)
    return shown
