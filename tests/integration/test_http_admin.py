"""What operators do to sales over HTTP, and what buyers then see."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from api.tokens import Role
from engine.servers import EmbeddedValkey
from tests.support.front import Reply, Served, serve
from tests.support.sales import sale_document
from tests.support.waiting import until


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        yield served


async def create(served: Served, sale_id: str = "demo", **changes: object) -> Reply:
    document = json.loads(sale_document(sale_id, **changes))  # type: ignore[arg-type]
    return await served.operate("/sales", document)


async def test_a_sale_is_created_from_a_document_and_sells(served: Served) -> None:
    made = await create(served, stock={"phone-black": 5})
    assert made.status == 201
    assert made.json["state"] == "open"
    assert made.json["items"][0] | {"name": {}, "price": {}} == {
        "sku": "phone-black",
        "name": {},
        "price": {},
        "stocked": 5,
        "available": 5,
        "reserved": 0,
        "sold": 0,
    }
    assert (await served.reserve("u1")).status == 201
    shown = await served.call("GET", made.headers["Location"], user="op-1", role=Role.OPERATOR)
    assert shown.status == 200
    listed = await served.call("GET", "/v1/admin/sales", user="op-1", role=Role.OPERATOR)
    assert [sale["sale_id"] for sale in listed.json["sales"]] == ["demo"]
    again = await create(served)
    assert (again.status, again.code) == (409, "sale_exists")


async def test_every_problem_of_a_document_is_listed_by_field(served: Served) -> None:
    reply = await create(
        served,
        per_user_max=0,
        colour="red",
        items=[{"sku": "a b", "name": {"en": "x"}, "units": -1, "price": {"amount_minor": 1}}],
    )
    assert (reply.status, reply.code) == (400, "invalid_request")
    fields = {error["field"] for error in reply.json["errors"]}
    assert fields >= {
        "per_user_max",
        "colour",
        "items[0].sku",
        "items[0].units",
        "items[0].price.currency",
    }


async def shown(served: Served, sale: str = "demo") -> dict[str, object]:
    found: dict[str, object] = (await served.get(f"/v1/sales/{sale}")).json
    return found


async def test_pause_resume_close_and_open_are_seen_at_once(served: Served) -> None:
    await create(served)
    seen = []
    for verb in ("pause", "pause", "resume", "close", "open"):
        assert (await served.operate(f"/sales/demo/{verb}")).status == 200
        reply = await served.reserve(f"buyer-{verb}", key="k")
        seen.append(((await shown(served))["state"], reply.status, reply.code))
    assert seen == [
        ("paused", 503, "sale_paused"),
        ("paused", 503, "sale_paused"),
        ("open", 201, None),
        ("closed", 410, "sale_ended"),
        ("open", 201, None),
    ]


async def test_a_closed_sale_cannot_be_paused(served: Served) -> None:
    await create(served)
    await served.operate("/sales/demo/close")
    reply = await served.operate("/sales/demo/pause")
    assert (reply.status, reply.code) == (409, "sale_closed")


async def test_a_sale_may_open_before_its_time(served: Served) -> None:
    await create(served, opens_in=3600)
    assert (await shown(served))["state"] == "scheduled"
    assert (await served.reserve("u1")).code == "not_started"
    assert (await served.operate("/sales/demo/open", {"now": True})).status == 200
    assert (await served.reserve("u1")).status == 201


async def test_a_sale_is_extended_never_shortened(served: Served) -> None:
    await create(served)
    later = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    reply = await served.operate("/sales/demo/extend", {"closes_at": later.isoformat()})
    assert reply.json["closes_at"] == later.strftime("%Y-%m-%dT%H:%M:%SZ")
    for closes_at in ("2020-01-01T00:00:00Z", "2030-01-01T00:00:00", "soon", 7):
        reply = await served.operate("/sales/demo/extend", {"closes_at": closes_at})
        assert (reply.status, reply.code) == (400, "invalid_request"), closes_at


async def test_units_put_up_again_are_seen_and_sold(served: Served) -> None:
    await create(served, stock={"phone-black": 1})
    assert (await served.reserve("u1")).status == 201
    assert (await served.reserve("u2")).code == "all_reserved"
    body = {"sku": "phone-black", "units": 2}
    for _ in range(2):  # The same key is the same restock.
        reply = await served.operate("/sales/demo/restock", body, idempotency_key="r1")
        assert reply.json["items"][0]["stocked"] == 3
    assert (await served.reserve("u2")).status == 201
    reply = await served.operate("/sales/demo/restock", body | {"units": 3}, idempotency_key="r1")
    assert (reply.status, reply.code) == (422, "idempotency_mismatch")


async def test_unfit_steering_is_refused(served: Served) -> None:
    await create(served)
    for path, body in (
        ("restock", {"sku": "phone-black", "units": 0}),
        ("restock", {"sku": "phone-black", "units": "1"}),
        ("restock", {"sku": "phone-black", "units": 10**20}),
        ("restock", {"sku": "phone-black", "units": 1_000_000_000}),
        ("restock", {"sku": "phone-gold", "units": 1}),
        ("restock", {"units": 1}),
        ("open", {"now": "yes"}),
        ("pause", {"why": "x"}),
    ):
        reply = await served.operate(f"/sales/demo/{path}", body)
        assert (reply.status, reply.code) == (400, "invalid_request"), (path, body)
    assert (await served.operate("/sales/nope/pause")).code == "unknown_sale"
    assert (await served.get("/v1/sales/nope")).code == "unknown_sale"


async def test_what_operators_did_is_in_the_audit_log(served: Served) -> None:
    await create(served)
    await create(served, "other")
    await served.operate("/sales/demo/pause")
    path = "/v1/admin/audit?sale=demo&limit=1"
    first = (await served.call("GET", path, user="op-1", role=Role.OPERATOR)).json
    assert [(e["actor"], e["action"]) for e in first["entries"]] == [("op-1", "pause")]
    path += f"&after={first['next']}"
    second = (await served.call("GET", path, user="op-1", role=Role.OPERATOR)).json
    assert [(e["actor"], e["action"]) for e in second["entries"]] == [("op-1", "create")]


async def test_anyone_sees_sales_with_their_live_stock(served: Served) -> None:
    await create(served, stock={"phone-black": 10})
    await served.reserve("u1")

    async def sold_one() -> dict[str, object] | None:
        sale: dict[str, object] = (await served.get("/v1/sales")).json["sales"][0]
        (item,) = sale["items"]  # type: ignore[misc, call-overload]
        assert item["stocked"] == 10
        return sale if item["available"] == 9 else None

    sale = await until(sold_one, "one unit fewer on show")
    assert sale["server_time"].endswith("Z")
    assert "revision" not in sale


async def test_probes_and_metrics_answer(served: Served) -> None:
    await create(served)
    await served.reserve("u1")
    assert (await served.get("/healthz")).json == {"status": "ok"}
    assert (await served.get("/readyz")).json == {"status": "ready"}
    metrics = (await served.get("/metrics")).body.decode()
    assert 'doorbuster_reservations_total{outcome="reserved"}' in metrics
    assert "POST /v1/sales/{sale}/reservations" in metrics
    head = await served.call("HEAD", "/healthz")
    assert (head.status, head.body) == (200, b"")


async def test_a_bug_is_told_without_its_cause(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: str) -> None:
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(served.engine.directory, "get", broken)
    reply = await served.get("/v1/sales/demo", x_request_id="find-me-1")
    assert (reply.status, reply.code) == (500, "internal_error")
    assert reply.json["request_id"] == "find-me-1"
    assert b"secret" not in reply.body


async def test_paths_and_methods_that_do_not_exist_are_problems_too(served: Served) -> None:
    assert (await served.get("/v2")).code == "not_found"
    wrong = await served.call("PATCH", "/v1/sales/demo/reservations", user="u1")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["Allow"]
