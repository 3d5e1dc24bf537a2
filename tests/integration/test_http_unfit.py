"""Values that Postgres cannot hold are refused as what they are, never answered as a bug."""

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator

import asyncpg
import pytest
from redis.asyncio import Redis

from api.orders.store import OrderBook
from api.tokens import Role
from engine.servers import EmbeddedValkey
from tests.support.front import Served, serve
from tests.support.sales import sale_document

ITEMS = {"items": [{"sku": "phone-black", "quantity": 1}]}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await served.sell()
        yield served


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/sales/%00", "unknown_sale"),
        ("GET", "/v1/sales/" + "a" * 200, "unknown_sale"),
        ("POST", "/v1/sales/%00/reservations", "unknown_sale"),
        ("GET", "/v1/reservations/demo.%00", "not_found"),
        ("GET", "/v1/orders/%00", "not_found"),
        ("POST", "/v1/orders/%00/payments", "not_found"),
        ("GET", "/v1/payments/%00", "not_found"),
        ("POST", "/v1/payments/%00/refunds", "not_found"),
        ("POST", "/v1/webhooks/%00", "not_found"),
        ("GET", "/v1/admin/sales/%00", "unknown_sale"),
        ("POST", "/v1/admin/sales/%00/pause", "unknown_sale"),
        ("POST", "/v1/admin/payments/%00/refunds", "not_found"),
        ("GET", "/v1/admin/audit?sale=%00", "unknown_sale"),
    ],
)
async def test_a_path_that_can_name_nothing_is_not_found(
    served: Served, method: str, path: str, code: str
) -> None:
    reply = await served.call(
        method,
        path,
        user="op-1",
        role=Role.OPERATOR,
        body=ITEMS if method == "POST" else None,
        idempotency_key="k",
    )
    assert (reply.status, reply.code) == (404, code)


async def test_a_nul_in_a_body_is_refused(served: Served) -> None:
    order = (await served.reserve("u1")).json["reservation_id"]
    await served.drain()
    login = {"email": "a\0@b", "password": "correct horse"}
    document = json.loads(sale_document("other"))
    document["name"] = {"en": "A sale\0"}
    payments = f"/v1/orders/{order}/payments"
    for reply in (
        await served.post("/v1/sessions", body=login),
        await served.post(payments, user="u1", body={"options": {"deep": [{"a": "\0"}]}}),
        await served.post(payments, user="u1", data=b'{"options":{"a":"\\\\\\u0000"}}'),
        await served.operate("/sales/demo/restock", {"sku": "a\0", "units": 1}),
        await served.operate("/sales", document),
    ):
        assert (reply.status, reply.code) == (400, "invalid_request"), reply.body
    written_out = await served.post(payments, user="u1", body={"options": {"a": "\\u0000"}})
    assert written_out.status == 201, "six characters, none of them a NUL"


@pytest.mark.parametrize(
    "key",
    [
        ["2026-01-01T00:00:00Z", "\0"],
        ["2026-01-01T00:00:00Z", "x"],
        ["0001-01-01T00:00:00+23:00", "00000000000000000000"],
    ],
)
async def test_a_made_up_page_is_refused(served: Served, key: list[str]) -> None:
    after = urlsafe_b64encode(json.dumps(key).encode()).decode()
    reply = await served.get(f"/v1/orders?after={after}", user="u1")
    assert (reply.status, reply.code) == (400, "invalid_request")


@pytest.mark.parametrize("closes_at", ["9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00"])
async def test_a_time_beyond_the_calendar_is_refused(served: Served, closes_at: str) -> None:
    reply = await served.operate("/sales/demo/extend", {"closes_at": closes_at})
    assert (reply.status, reply.code) == (400, "invalid_request")


async def test_whatever_else_postgres_cannot_hold_is_the_callers_fault(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(book: OrderBook, sale_id: str, _: str) -> None:
        with pytest.raises(asyncpg.DataError) as refused:
            await served.engine.pool.fetchval("SELECT $1::text", f"{sale_id}\0")
        raise refused.value

    monkeypatch.setattr(OrderBook, "find", find)
    reply = await served.get("/v1/orders/demo.00000000000000000000", user="u1")
    assert (reply.status, reply.code) == (400, "invalid_request")
