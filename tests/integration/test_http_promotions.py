"""Promotions, coupons and points over HTTP: who may do what, and what the answers say."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from api.points.bodies import Balance, LinesPage
from api.promotions.bodies import CouponOffer, Offers, PromotionShown, Wallet
from api.tokens import Role
from engine.servers import EmbeddedValkey
from tests.support.front import Reply, Served, serve

TERMS = {
    "kind": "percent",
    "name": {"en": "Spring", "zh-CN": "春季优惠"},
    "currencies": {"CNY": {"discount_max_minor": 5_000}},
    "basis_points": 1_000,
}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        yield served


async def offer(served: Served, **changes: Any) -> str:
    reply = await served.operate("/promotions", {"terms": TERMS, **changes})
    assert reply.status == 201, reply.body
    shown = msgspec.convert(reply.json, PromotionShown, strict=True)
    assert reply.headers["Location"] == f"/v1/admin/promotions/{shown.promotion_id}"
    return shown.promotion_id


async def call_as(served: Served, role: Role, method: str, path: str, body: Any = None) -> Reply:
    return await served.call(method, f"/v1/admin{path}", user="staff", role=role, body=body)


async def test_a_promotion_is_made_found_changed_and_stopped(served: Served) -> None:
    promotion_id = await offer(served, uses_max=10)
    path = f"/promotions/{promotion_id}"
    shown = (await call_as(served, Role.SUPPORT, "GET", path)).json
    assert (shown["revision"], shown["active"], shown["used"], shown["uses_max"]) == (
        1,
        True,
        0,
        10,
    )
    assert shown["terms"]["basis_points"] == 1_000

    change = {
        "terms": TERMS | {"basis_points": 1_500},
        "public": False,
        "valid_from": shown["valid_from"],
        "valid_until": "2999-01-01T00:00:00+08:00",
        "per_user_max": 1,
        "uses_max": None,
    }
    changed = (await call_as(served, Role.OPERATOR, "PUT", path, change)).json
    assert (changed["revision"], changed["valid_until"]) == (2, "2998-12-31T16:00:00Z")
    history = (await call_as(served, Role.SUPPORT, "GET", f"{path}/revisions")).json["revisions"]
    assert [entry["terms"]["basis_points"] for entry in history] == [1_500, 1_000]

    for word, active in (("deactivate", False), ("deactivate", False), ("activate", True)):
        assert (await served.operate(f"{path}/{word}")).json["active"] is active
    audit = (await call_as(served, Role.OPERATOR, "GET", "/audit")).json["entries"]
    assert [entry["action"] for entry in audit] == [
        "promotion_activated",
        "promotion_deactivated",
        "promotion_changed",
        "promotion_created",
    ]


async def test_lists_go_on_where_the_page_before_ended(served: Served) -> None:
    made = sorted([await offer(served) for _ in range(3)])
    await served.operate(f"/promotions/{made[1]}/deactivate")
    seen, after = [], ""
    for _ in range(3):
        page = (await call_as(served, Role.SUPPORT, "GET", f"/promotions?limit=2{after}")).json
        seen += [shown["promotion_id"] for shown in page["promotions"]]
        if "next" not in page:
            break
        after = f"&after={page['next']}"
    assert seen == made
    stopped = (await call_as(served, Role.SUPPORT, "GET", "/promotions?active=false")).json
    assert [shown["promotion_id"] for shown in stopped["promotions"]] == [made[1]]


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"kind": "gift"}, "terms.kind"),
    ({"name": {}}, "terms.name"),
    ({"name": {"en": "a\nb"}}, "terms.name[...]"),
    ({"name": {"fr": "x"}}, "terms.name"),
    ({"currencies": {}}, "terms.currencies"),
    ({"currencies": {"XXX": {}}}, "currencies.XXX"),
    ({"currencies": {"CNY": {"off_minor": 5}}}, "currencies.CNY.off_minor"),
    ({"currencies": {"CNY": {"from_minor": 5}}}, "currencies.CNY.from_minor"),
    ({"basis_points": 0}, "basis_points"),
    ({"basis_points": 10_001}, "terms.basis_points"),
    ({"repeated": True}, "repeated"),
    ({"skus": ["a b"]}, "terms.skus[0]"),
    (
        {
            "kind": "threshold",
            "basis_points": 0,
            "currencies": {"CNY": {"off_minor": 6, "from_minor": 5}},
        },
        "currencies.CNY.off_minor",
    ),
]


async def test_terms_that_promise_nothing_sensible_are_refused_by_field(served: Served) -> None:
    for change, field in FAULTS:
        reply = await served.operate("/promotions", {"terms": TERMS | change})
        assert (reply.status, reply.code) == (400, "invalid_request"), change
        assert reply.json["errors"][0]["field"] == field, reply.json


async def test_validity_has_an_order_and_a_calendar(served: Served) -> None:
    for moments in (
        {"valid_from": "2026-01-02T00:00:00Z", "valid_until": "2026-01-02T00:00:00Z"},
        {"valid_from": "0001-01-01T00:00:00+08:00"},
        {"valid_from": "2026-01-02T00:00:00"},
    ):
        reply = await served.operate("/promotions", {"terms": TERMS, **moments})
        assert (reply.status, reply.code) == (400, "invalid_request"), reply.body
    assert (await call_as(served, Role.OPERATOR, "GET", "/audit")).json["entries"] == []


async def test_codes_are_made_in_bulk_listed_exported_and_withdrawn(served: Served) -> None:
    promotion_id = await offer(served, by_code=True)
    path = f"/promotions/{promotion_id}/codes"
    made = (await served.operate(path, {"count": 30, "prefix": "SPRING-"})).json["codes"]
    assert len(set(made)) == 30
    assert all(code.startswith("SPRING-") and len(code) == 19 for code in made)
    named = {"code": "WELCOME", "uses_max": None}
    assert (await served.operate(path, named)).json == {"codes": ["WELCOME"]}
    taken = await served.operate(path, named)
    assert (taken.status, taken.code) == (409, "code_taken")

    first = (await call_as(served, Role.SUPPORT, "GET", f"{path}?limit=20")).json
    rest = (
        await call_as(served, Role.SUPPORT, "GET", f"{path}?limit=20&after={first['next']}")
    ).json
    listed = [coupon["code"] for coupon in first["coupons"] + rest["coupons"]]
    assert listed == sorted([*made, "WELCOME"])
    assert "next" not in rest

    withdrawn = await served.operate(f"{path}/{made[0].lower()}/withdraw")
    assert withdrawn.json["withdrawn"] is True
    export = await call_as(served, Role.OPERATOR, "GET", f"{path}.csv")
    assert export.headers["Content-Type"].startswith("text/csv")
    rows = export.body.decode().split("\r\n")
    assert rows[0] == "code,uses_max,used,claimed,withdrawn"
    assert f"{made[0]},1,0,no,yes" in rows
    assert "WELCOME,,0,no,no" in rows


async def test_operators_see_who_redeemed_what(served: Served) -> None:
    promotion_id = await offer(served)
    await served.engine.pool.execute(
        "INSERT INTO redemptions (promotion_id, revision, sale_id, reservation_id, user_id,"
        " amount_minor, currency) SELECT $1, 1, 'shop', lpad(n::text, 20, '0'), 'ann', n, 'CNY'"
        " FROM generate_series(1, 3) AS n",
        promotion_id,
    )
    path = f"/promotions/{promotion_id}/redemptions"
    first = (await call_as(served, Role.SUPPORT, "GET", f"{path}?limit=2")).json
    rest = (
        await call_as(served, Role.SUPPORT, "GET", f"{path}?limit=2&after={first['next']}")
    ).json
    shown = first["redemptions"] + rest["redemptions"]
    assert [each["amount"]["amount_minor"] for each in shown] == [3, 2, 1]
    assert shown[0]["order_id"] == "shop.00000000000000000003"
    assert {each["state"] for each in shown} == {"taken"}
    assert (await call_as(served, Role.SUPPORT, "GET", "/promotions/x/redemptions")).status == 404


async def test_what_is_no_wish_for_codes_is_refused(served: Served) -> None:
    with_code, without = await offer(served, by_code=True), await offer(served)
    for body in (
        {"count": 0},
        {"count": 10_001},
        {"prefix": "a"},
        {"code": "AB"},
        {"code": "ABC", "count": 2},
    ):
        reply = await served.operate(f"/promotions/{with_code}/codes", body)
        assert (reply.status, reply.code) == (400, "invalid_request"), body
    assert (await served.operate(f"/promotions/{without}/codes", {})).code == "conflict"
    assert (await served.operate("/promotions/promo_x/codes", {})).code == "not_found"


async def test_buyers_see_what_is_public_in_their_language(served: Served) -> None:
    await offer(served)
    await offer(served, public=False)
    by_code = await offer(served, by_code=True)
    await served.operate(f"/promotions/{by_code}/codes", {"code": "SPRING", "uses_max": None})
    await served.operate(f"/promotions/{by_code}/codes", {"code": "A-SECRET"})
    reply = await served.get("/v1/promotions", accept_language="zh-CN")
    offers = msgspec.convert(reply.json, Offers).promotions
    assert [(each.name, each.by_code, each.code) for each in offers] == [
        ("春季优惠", False, None),
        ("春季优惠", True, "SPRING"),
    ]


async def test_a_coupon_is_looked_at_claimed_and_kept_in_ones_own_wallet(served: Served) -> None:
    promotion_id = await offer(served, by_code=True)
    await served.operate(f"/promotions/{promotion_id}/codes", {"code": "ONLY-ONE"})
    looked = msgspec.convert(
        (await served.get("/v1/coupons/only-one", user="ann")).json, CouponOffer
    )
    assert (looked.usable, looked.refused, looked.claimed) == (True, None, False)
    other = (await served.get("/v1/coupons/ONLY-ONE?currency=USD", user="ann")).json
    assert (other["usable"], other["refused"]) == (False, "coupon_not_applicable")

    claims = [await served.post("/v1/coupons", user="ann", body={"code": "only-one"}) for _ in "12"]
    assert [reply.status for reply in claims] == [201, 200]
    wallet = msgspec.convert((await served.get("/v1/coupons", user="ann")).json, Wallet)
    assert [coupon.code for coupon in wallet.coupons] == ["ONLY-ONE"]
    assert (await served.get("/v1/coupons", user="bob")).json == {"coupons": []}
    refused = await served.post("/v1/coupons", user="bob", body={"code": "ONLY-ONE"})
    assert (refused.status, refused.code) == (409, "coupon_used")
    assert (await served.get("/v1/coupons/ONLY-ONE", user="bob")).json["refused"] == "coupon_used"
    for reply in (
        await served.get("/v1/coupons/NOBODYS", user="ann"),
        await served.get("/v1/coupons/!", user="ann"),
        await served.post("/v1/coupons", user="ann", body={"code": "NOBODYS"}),
    ):
        assert (reply.status, reply.code) == (404, "coupon_unknown")
    await served.operate(f"/promotions/{promotion_id}/deactivate")
    wallet = msgspec.convert((await served.get("/v1/coupons", user="ann")).json, Wallet)
    assert (wallet.coupons[0].usable, wallet.coupons[0].refused) == (False, "coupon_expired")


async def test_a_wallet_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.promotions.wallet.CLAIMS_MAX", 2)
    promotion_id = await offer(served, by_code=True)
    codes = (await served.operate(f"/promotions/{promotion_id}/codes", {"count": 3})).json["codes"]
    replies = [await served.post("/v1/coupons", user="ann", body={"code": code}) for code in codes]
    assert [reply.code for reply in replies] == [None, None, "limit_reached"]


async def test_points_are_ruled_granted_and_shown(served: Served) -> None:
    rule = {"earned_per_thousand": 1_500, "points_per_major": 200, "valid_days": None}
    path = "/v1/admin/points/rules/CNY"
    put = await served.call("PUT", path, user="op-1", role=Role.OPERATOR, body=rule)
    assert put.json == rule | {"currency": "CNY", "share_max_percent": 50}
    assert (await call_as(served, Role.SUPPORT, "GET", "/points/rules")).json == {
        "rules": [put.json]
    }
    unknown = await call_as(served, Role.OPERATOR, "PUT", "/points/rules/XXX", rule)
    assert unknown.code == "not_found"

    for number in range(3):
        body = {"points": 10 + number, "reason": "sorry", "valid_days": 30 if number else None}
        given = await served.operate("/points/users/ann/grants", body, idempotency_key=f"k{number}")
        assert given.status == 200
    balance = msgspec.convert((await served.get("/v1/points", user="ann")).json, Balance)
    assert (balance.balance, balance.owed) == (33, 0)
    assert balance.next_to_expire is not None
    assert balance.next_to_expire.points == 11
    short = await served.operate("/points/users/ann/deductions", {"points": 34, "reason": "x"})
    assert (short.status, short.code) == (409, "points_short")

    first = msgspec.convert(
        (await served.get("/v1/points/lines?limit=2", user="ann")).json, LinesPage
    )
    rest = (await served.get(f"/v1/points/lines?limit=2&after={first.next}", user="ann")).json
    assert [line.points for line in first.lines] == [12, 11]
    assert [(line["points"], line["reason"]) for line in rest["lines"]] == [(10, "sorry")]
    support = (await call_as(served, Role.SUPPORT, "GET", "/points/users/ann/lines")).json
    assert len(support["lines"]) == 3
    assert (await served.get("/v1/points", user="bob")).json["balance"] == 0

    removed = await call_as(served, Role.OPERATOR, "DELETE", "/points/rules/CNY")
    assert removed.json == put.json
    again = await call_as(served, Role.OPERATOR, "DELETE", "/points/rules/CNY")
    assert again.code == "not_found"


async def test_only_those_in_charge_change_anything(served: Served) -> None:
    promotion_id = await offer(served)
    writes = (
        ("POST", "/promotions"),
        ("PUT", f"/promotions/{promotion_id}"),
        ("POST", f"/promotions/{promotion_id}/activate"),
        ("POST", f"/promotions/{promotion_id}/deactivate"),
        ("POST", f"/promotions/{promotion_id}/codes"),
        ("GET", f"/promotions/{promotion_id}/codes.csv"),
        ("POST", f"/promotions/{promotion_id}/codes/ABC/withdraw"),
        ("PUT", "/points/rules/CNY"),
        ("DELETE", "/points/rules/CNY"),
        ("POST", "/points/users/ann/grants"),
        ("POST", "/points/users/ann/deductions"),
    )
    for method, path in writes:
        assert (await call_as(served, Role.SUPPORT, method, path)).code == "forbidden", path
    for path in (
        "/promotions",
        f"/promotions/{promotion_id}",
        "/points/rules",
        "/points/users/ann",
    ):
        assert (await call_as(served, Role.BUYER, "GET", path)).code == "forbidden", path
    for path in ("/v1/coupons", "/v1/coupons/ABC", "/v1/points", "/v1/points/lines"):
        assert (await served.get(path)).code == "unauthenticated", path
