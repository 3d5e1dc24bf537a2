"""What operators do to admission over HTTP, and what becomes of it at once."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from api.tokens import Role
from engine.servers import EmbeddedValkey
from tests.support.front import Reply, Served, serve
from tests.support.sales import sale_document
from tests.support.waiting import until

ADMISSION = "/v1/admin/sales/demo/admission"
RULES = "/v1/admin/access-rules"


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await served.sell()
        yield served


async def operate(served: Served, method: str, path: str, body: object = None) -> Reply:
    return await served.call(method, path, user="op-1", role=Role.OPERATOR, body=body)


async def settings(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = (await operate(served, "GET", ADMISSION)).json["settings"]
    return found


async def audited(served: Served) -> list[tuple[str, str, Any]]:
    """Newest first: who did what, and how."""
    entries = (await operate(served, "GET", "/v1/admin/audit")).json["entries"]
    return [(entry["actor"], entry["action"], entry["detail"]) for entry in entries]


async def test_a_sale_without_a_room_shows_what_it_would_be(served: Served) -> None:
    shown = (await operate(served, "GET", ADMISSION)).json
    assert shown["settings"]["on"] is False
    assert shown["settings"]["order"] == "fifo"
    assert shown["look"] is None
    assert await served.engine.rooms.refresh_once() == 0, "no room is followed for it"
    assert shown["pace"]["fronts"] >= 1
    assert shown["process"]["limit"] >= 1
    assert shown["access_rules"] == []


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_only_the_fields_given_change(served: Served, method: str) -> None:
    first = await operate(served, method, ADMISSION, {"on": True, "pace_max": 50})
    assert first.status == 200
    assert first.json["settings"]["seed_hash"]
    second = await operate(served, method, ADMISSION, {"over_admission": 2, "pace_max": None})
    expected = first.json["settings"] | {"over_admission": 2.0, "pace_max": None, "revision": 2}
    assert second.json["settings"] == expected
    assert await settings(served) == expected
    unchanged = await operate(served, method, ADMISSION, {})
    assert unchanged.json["settings"] == expected


async def test_a_sale_made_with_a_room_has_it_at_once(served: Served) -> None:
    document = json.loads(sale_document("other", room={"order": "draw"}, opens_in=600))
    assert (await served.operate("/sales", document)).status == 201
    entered = await served.post("/v1/sales/other/queue", user="u1")
    assert (entered.status, entered.json["state"]) == (201, "prequeue")


async def test_every_change_is_audited_from_what_to_what(served: Served) -> None:
    await operate(served, "PATCH", ADMISSION, {"on": True})
    await operate(served, "PATCH", ADMISSION, {"on": True})  # Changes nothing: leaves no line.
    await operate(served, "PATCH", ADMISSION, {"absent_seconds": 60})
    newest, before, first = (await audited(served))[:3]
    assert newest == ("op-1", "change_room", {"absent_seconds": {"from": 45, "to": 60}})
    assert before[2]["on"] == {"from": False, "to": True}
    assert first[1] == "create"


async def test_every_problem_of_a_change_is_listed_by_field_and_nothing_is_changed(
    served: Served,
) -> None:
    before = await settings(served)
    reply = await operate(
        served,
        "PATCH",
        ADMISSION,
        {
            "on": "yes",
            "order": "whim",
            "prequeue_seconds": -1,
            "pace_max": 0,
            "over_admission": 0.5,
            "admission_seconds": None,
            "absent_seconds": 1e9,
            "proof_difficulty": True,
            "captcha": True,
            "seed_hash": "0" * 64,
            "colour": "red",
        },
    )
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert {error["field"] for error in reply.json["errors"]} == {
        "on",
        "order",
        "prequeue_seconds",
        "pace_max",
        "over_admission",
        "admission_seconds",
        "absent_seconds",
        "proof_difficulty",
        "captcha",
        "seed_hash",
        "colour",
    }
    assert await settings(served) == before


async def test_a_body_that_is_no_object_is_refused(served: Served) -> None:
    for body in ([], "on", 7):
        reply = await operate(served, "PATCH", ADMISSION, body)
        assert (reply.status, reply.code) == (400, "invalid_request"), body


async def test_a_sale_that_is_none_has_no_admission(served: Served) -> None:
    path = "/v1/admin/sales/nope/admission"
    for method, body in (("GET", None), ("PATCH", {"on": True}), ("PUT", {})):
        assert (await operate(served, method, path, body)).code == "unknown_sale"


async def test_the_order_is_settled_once_the_sale_has_opened(served: Served) -> None:
    reply = await operate(served, "PATCH", ADMISSION, {"order": "draw"})
    assert (reply.status, reply.code) == (409, "conflict")


async def test_a_room_that_is_on_shows_how_it_stands(served: Served) -> None:
    await operate(served, "PATCH", ADMISSION, {"on": True})
    await served.post("/v1/sales/demo/queue", user="u1")

    async def one_is_let_in() -> dict[str, Any] | None:
        look = (await operate(served, "GET", ADMISSION)).json["look"]
        return look if look["admitted"] else None

    look = await until(one_is_let_in, "the only visitor is let in")
    assert (look["issued"], look["serving"], look["waiting"]) == (1, 1, 0)
    assert (look["available"], look["reserved"], look["sold"]) == (100, 0, 0)


async def test_a_change_is_recorded_while_redis_is_away(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.errors import RedisUnavailable

    async def away(*_: object, **__: object) -> bool:
        raise RedisUnavailable("Redis does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(served.engine.rooms.store, "furnish", away)
        reply = await operate(served, "PATCH", ADMISSION, {"on": True})
    assert (reply.status, reply.code) == (503, "unavailable")
    assert "Recorded" in reply.json["detail"]
    assert (await settings(served))["on"] is True
    assert await served.engine.room_control.sync() == 1


async def add_rule(served: Served, subject: str, verdict: str, **more: object) -> Reply:
    return await operate(served, "POST", RULES, {"subject": subject, "verdict": verdict} | more)


async def test_who_is_denied_is_kept_out_at_once_and_let_in_when_the_rule_is_forgotten(
    served: Served,
) -> None:
    made = await add_rule(served, "user:u1", "deny", reason="bot")
    assert made.status == 201
    refused = await served.reserve("u1")
    assert (refused.status, refused.code) == (403, "forbidden")
    assert (await served.reserve("u2")).status == 201
    removed = await operate(served, "DELETE", made.headers["Location"])
    assert (removed.status, removed.json["subject"]) == (200, "user:u1")
    assert (await served.reserve("u1")).status == 201
    again = await operate(served, "DELETE", made.headers["Location"])
    assert (again.status, again.code) == (404, "not_found")
    assert [line[1] for line in (await audited(served))[:2]] == ["access_removed", "access_added"]


async def test_a_rule_of_one_sale_is_none_of_another(served: Served) -> None:
    await served.sell("other")
    await add_rule(served, "user:u1", "deny", sale_id="demo")
    assert (await served.reserve("u1")).code == "forbidden"
    assert (await served.reserve("u1", sale="other")).status == 201


async def test_rules_are_listed_by_page_and_beside_the_sales_they_concern(served: Served) -> None:
    await served.sell("other")
    for subject, sale_id in (("user:a", None), ("user:b", "demo"), ("user:c", "other")):
        await add_rule(served, subject, "allow", sale_id=sale_id)
    shown = (await operate(served, "GET", ADMISSION)).json["access_rules"]
    assert [rule["subject"] for rule in shown] == ["user:b", "user:a"]
    first = (await operate(served, "GET", f"{RULES}?limit=2")).json
    assert [rule["subject"] for rule in first["rules"]] == ["user:c", "user:b"]
    second = (await operate(served, "GET", f"{RULES}?limit=2&after={first['next']}")).json
    assert [rule["subject"] for rule in second["rules"]] == ["user:a"]
    assert "next" not in second


async def test_unfit_rules_are_refused(served: Served) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    for subject, verdict, more in (
        ("u1", "deny", {}),
        ("user:", "deny", {}),
        ("user:u1", "perhaps", {}),
        ("address:10.0.0.0.1", "deny", {}),
        ("address:2001:db8::/96", "deny", {}),
        ("user:u1", "deny", {"expires_at": past}),
        ("user:u1", "deny", {"expires_at": "2030-01-01T00:00:00"}),
        ("user:u1", "deny", {"reason": "x" * 1000}),
        ("user:u1", "deny", {"colour": "red"}),
    ):
        reply = await add_rule(served, subject, verdict, **more)
        assert (reply.status, reply.code) == (400, "invalid_request"), (subject, verdict, more)
    assert (await add_rule(served, "user:u1", "deny", sale_id="nope")).code == "unknown_sale"
    for rule in ("7", "x", "9" * 30, "-1"):
        assert (await operate(served, "DELETE", f"{RULES}/{rule}")).code == "not_found"
    assert (await operate(served, "GET", RULES)).json == {"rules": []}
