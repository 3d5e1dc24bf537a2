"""Addresses: one's own, checked, bounded, one of them the default."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from api.addresses.store import ADDRESSES_MAX, Addresses
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.accounts import forget_everybody, serve_all
from tests.support.front import Reply, Served

HOME = {
    "name": "李雷",
    "phone": "+86 138 0013 8000",
    "country": "CN",
    "region": "浙江省",
    "city": "杭州市",
    "street": "文三路 1 号",
    "postal_code": "310012",
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Served]:
    async with serve_all(valkey, postgres) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def served(engine: Served) -> Served:
    await forget_everybody(engine)
    return engine


async def add(served: Served, user: str = "u1", **changes: object) -> Reply:
    return await served.post("/v1/addresses", user=user, body=HOME | changes)


async def listed(served: Served, user: str = "u1") -> list[tuple[str, bool]]:
    reply = await served.get("/v1/addresses", user=user)
    return [(address["name"], address["is_default"]) for address in reply.json["addresses"]]


async def test_an_address_is_kept_shown_changed_and_removed(served: Served) -> None:
    made = await add(served)
    assert made.status == 201
    assert made.json == HOME | {"address_id": made.json["address_id"], "is_default": True}
    path = made.headers["Location"]
    assert (await served.get(path, user="u1")).json == made.json
    changed = await served.call("PATCH", path, user="u1", body={"city": "Hangzhou"})
    assert changed.json == made.json | {"city": "Hangzhou"}
    kept = await Addresses(served.engine.pool).get("u1", made.json["address_id"])
    assert kept is not None
    assert kept.city == "Hangzhou"
    assert (await served.call("DELETE", path, user="u1")).status == 204
    assert (await served.get(path, user="u1")).code == "not_found"


async def test_anothers_address_does_not_exist(served: Served) -> None:
    path = (await add(served)).headers["Location"]
    for method, body in (("GET", None), ("PATCH", {"city": "X"}), ("DELETE", None)):
        reply = await served.call(method, path, user="u2", body=body)
        assert reply.code == "not_found", method
    assert await Addresses(served.engine.pool).get("u2", path.rpartition("/")[2]) is None
    assert await listed(served, "u2") == []
    assert len(await listed(served)) == 1


async def test_there_is_one_default_as_long_as_there_is_any_address(served: Served) -> None:
    a, b, _ = [(await add(served, name=name)).headers["Location"] for name in "abc"]
    assert await listed(served) == [("a", True), ("c", False), ("b", False)]
    await served.call("PATCH", b, user="u1", body={"is_default": True})
    assert await listed(served) == [("b", True), ("c", False), ("a", False)]
    refused = await served.call("PATCH", b, user="u1", body={"is_default": False})
    assert refused.json["errors"][0]["field"] == "is_default"
    await served.call("DELETE", b, user="u1")
    assert await listed(served) == [("c", True), ("a", False)]
    await add(served, name="d", is_default=True)
    assert await listed(served) == [("d", True), ("c", False), ("a", False)]
    await served.call("DELETE", a, user="u1")
    assert await listed(served) == [("d", True), ("c", False)]


async def test_so_many_and_no_more_even_at_once(served: Served) -> None:
    replies = await asyncio.gather(*(add(served) for _ in range(ADDRESSES_MAX + 3)))
    assert [reply.status for reply in replies].count(201) == ADDRESSES_MAX
    assert {reply.code for reply in replies} == {None, "too_many_addresses"}
    shown = await listed(served)
    assert (len(shown), [default for _, default in shown].count(True)) == (ADDRESSES_MAX, 1)


async def test_what_no_carrier_could_read_is_refused_by_its_field(served: Served) -> None:
    for field, wrong in (
        ("country", "XX"),
        ("country", "EU"),
        ("country", "cn"),
        ("country", "China"),
        ("name", ""),
        ("name", "two\nlines"),
        ("street", "x" * 201),
        ("phone", "call me"),
        ("postal_code", "?" * 4),
        ("region", None),
        ("user_id", "u2"),
    ):
        reply = await add(served, **{field: wrong})
        assert (reply.status, reply.code) == (400, "invalid_request"), (field, wrong)
        assert reply.json["errors"][0]["field"] == field
    path = (await add(served)).headers["Location"]
    reply = await served.call("PATCH", path, user="u1", body={"country": "ZZ"})
    assert reply.json["errors"][0]["field"] == "country"
