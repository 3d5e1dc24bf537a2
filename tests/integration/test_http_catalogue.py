"""The catalogue over HTTP: what buyers see of products and categories, and what operators do to them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from api.tokens import Role
from engine.servers import EmbeddedValkey
from tests.support.front import Reply, Served, serve

PHONE: dict[str, Any] = {
    "category_id": "phones",
    "brand": "Lumora",
    "name": {"en": "Camera phone", "zh-CN": "影像手机"},
    "description": {"en": "Sharp at night.", "zh-CN": "夜景清晰。"},
    "images": ["https://images.example/phone/1.jpg"],
    "attributes": {"battery": "5000 mAh", "screen": {"en": "6.5 inch", "zh-CN": "6.5 英寸"}},
    "skus": [
        {
            "sku": "phone-black",
            "options": {"colour": {"en": "black", "zh-CN": "黑色"}},
            "weight_grams": 198,
            "prices": [
                {"amount_minor": 449900, "currency": "CNY"},
                {"amount_minor": 62900, "currency": "USD"},
            ],
        },
        {"sku": "phone-white", "prices": [{"amount_minor": 449950, "currency": "CNY"}]},
    ],
}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await put_category(served, "digital", "Digital", "数码")
        await put_category(served, "phones", "Phones", "手机", parent_id="digital")
        yield served


async def operate(
    served: Served, method: str, path: str, body: object = None, **headers: str
) -> Reply:
    path = f"/v1/admin{path}"
    return await served.call(method, path, user="op-1", role=Role.OPERATOR, body=body, **headers)


async def put_category(served: Served, category_id: str, en: str, zh: str, **more: object) -> Reply:
    body = {"name": {"en": en, "zh-CN": zh}, **more}
    return await operate(served, "PUT", f"/categories/{category_id}", body)


async def put_phone(served: Served, **changes: object) -> Reply:
    reply = await operate(served, "PUT", "/products/camera-phone", {**PHONE, **changes})
    assert reply.status == 201, reply.body
    return reply


async def put_rate(served: Served, quote: str, rate: str, valid_on: str = "2024-01-01") -> None:
    rates = [{"base": "CNY", "quote": quote, "valid_on": valid_on, "rate": rate, "source": "test"}]
    assert (await operate(served, "PUT", "/exchange-rates", {"rates": rates})).status == 200


async def test_a_product_is_shown_in_the_language_and_the_currency_that_is_asked_for(
    served: Served,
) -> None:
    await put_phone(served)
    reply = await served.get("/v1/products/camera-phone", accept_language="zh-Hans;q=0.9, en;q=0.1")
    assert reply.status == 200
    assert reply.headers["Content-Language"] == "zh-CN"
    assert "Accept-Language" in reply.headers["Vary"]
    page = reply.json
    assert page["name"] == "影像手机"
    assert page["category"] == [
        {"category_id": "digital", "name": "数码"},
        {"category_id": "phones", "name": "手机"},
    ]
    assert page["attributes"] == {"battery": "5000 mAh", "screen": "6.5 英寸"}
    black, white = page["skus"]
    assert black["options"] == {"colour": "黑色"}
    assert black["price"] == {"amount_minor": 449900, "currency": "CNY"}
    assert (white["available"], white["sales"]) == (0, [])
    assert page["rating"] == {"average": None, "count": 0}

    dollars = (await served.get("/v1/products/camera-phone?currency=USD")).json
    assert dollars["name"] == "Camera phone"
    # The white one has no price in dollars, and there is no rate yet.
    assert [sku["price"] for sku in dollars["skus"]] == [
        {"amount_minor": 62900, "currency": "USD"},
        None,
    ]
    await put_rate(served, "USD", "0.1404")
    dollars = (await served.get("/v1/products/camera-phone?currency=USD")).json
    assert dollars["skus"][1]["price"] == {"amount_minor": 63173, "currency": "USD"}


async def test_a_page_that_is_at_hand_already_is_not_sent_again(served: Served) -> None:
    await put_phone(served)
    for path in ("/v1/products/camera-phone", "/v1/categories", "/v1/categories/phones"):
        first = await served.get(path)
        assert first.status == 200
        again = await served.get(path, if_none_match=first.headers["ETag"])
        assert (again.status, again.body) == (304, b""), path
        assert again.headers["ETag"] == first.headers["ETag"]
        other = await served.get(path, if_none_match=first.headers["ETag"], accept_language="zh-CN")
        assert other.status == 200


async def test_a_page_says_which_sales_offer_an_sku_and_how_many_units_are_left(
    served: Served,
) -> None:
    await put_phone(served)
    await served.sell("now", stock={"phone-black": 5})
    await served.sell("soon", stock={"phone-black": 7}, opens_in=3600)
    await served.sell("over", stock={"phone-black": 7}, opens_in=-7200, closes_in=-3600)
    assert (await served.reserve("u1", sale="now")).status == 201
    path = "/v1/products/camera-phone"
    black = (await served.get(path)).json["skus"][0]
    shown = [(sale["sale_id"], sale["state"], sale["available"]) for sale in black["sales"]]
    assert shown == [("now", "open", 4), ("soon", "scheduled", 7)]
    assert black["sales"][0]["price"] == {"amount_minor": 129900, "currency": "CNY"}


async def test_drafts_and_archived_products_are_not_shown(served: Served) -> None:
    await put_phone(served, status="draft")
    path = "/v1/products/camera-phone"
    assert (await served.get(path)).code == "not_found"
    assert (await operate(served, "GET", "/products/camera-phone")).json["status"] == "draft"
    await operate(served, "PATCH", "/products/camera-phone", {"status": "active"})
    assert (await served.get(path)).status == 200
    tree = (await served.get("/v1/categories")).json["categories"]
    assert tree[0]["product_count"] == tree[0]["children"][0]["product_count"] == 1
    archived = await operate(served, "DELETE", "/products/camera-phone")
    assert (archived.status, archived.json["status"]) == (200, "archived")
    assert (await served.get(path)).code == "not_found"
    tree = (await served.get("/v1/categories")).json["categories"]
    assert tree[0]["product_count"] == 0


async def test_whoever_changes_a_product_says_which_version_he_has_seen(served: Served) -> None:
    made = await put_phone(served)
    assert (made.headers["ETag"], made.json["revision"]) == ('"1"', 1)
    path = "/products/camera-phone"
    changed = {**PHONE, "brand": "Qingyu"}
    assert (await operate(served, "PUT", path, changed)).code == "precondition_required"
    first = await operate(served, "PUT", path, changed, if_match='"1"')
    assert (first.status, first.json["revision"], first.json["brand"]) == (200, 2, "Qingyu")
    for headers, body in (
        ({"if_match": '"1"'}, changed),
        ({}, {**changed, "revision": 1}),
        ({"if_none_match": "*"}, changed),
    ):
        reply = await operate(served, "PUT", path, body, **headers)
        assert (reply.status, reply.code) == (412, "changed_meanwhile"), headers
    # What is the same already makes no new version.
    same = await operate(served, "PUT", path, {**changed, "revision": 2})
    assert same.json["revision"] == 2
    # An audit line per change, none for what changed nothing.
    audit = (await operate(served, "GET", "/audit")).json["entries"]
    actions = [entry["action"] for entry in audit if entry["detail"].get("product_id")]
    assert actions == ["change_product", "create_product"]


async def test_of_two_operators_who_change_the_same_version_one_is_told(served: Served) -> None:
    created = await asyncio.gather(
        *(operate(served, "PUT", "/products/camera-phone", PHONE) for _ in range(4))
    )
    # The others came while it was made, or did not say that they had read it.
    statuses = [reply.status for reply in created]
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 409, 428}
    changes = [{**PHONE, "brand": f"Brand {n}", "revision": 1} for n in range(4)]
    replies = await asyncio.gather(
        *(operate(served, "PUT", "/products/camera-phone", change) for change in changes)
    )
    assert sorted(reply.status for reply in replies) == [200, 412, 412, 412]
    brand = next(reply.json["brand"] for reply in replies if reply.status == 200)
    shown = (await operate(served, "GET", "/products/camera-phone")).json
    assert (shown["brand"], shown["revision"]) == (brand, 2)


async def test_a_patch_changes_what_it_names_and_nothing_else(served: Served) -> None:
    before = (await put_phone(served)).json
    price = [{"amount_minor": 399900, "currency": "CNY"}]
    change = {"brand": "Qingyu", "skus": [{"sku": "phone-white", "prices": price}]}
    after = (await operate(served, "PATCH", "/products/camera-phone", change)).json
    assert after["skus"][1]["prices"] == price
    for field in ("name", "description", "images", "attributes", "category_id"):
        assert after[field] == before[field]
    assert after["skus"][0] == before["skus"][0]
    unknown = {"skus": [{"sku": "phone-gold", "active": False}]}
    reply = await operate(served, "PATCH", "/products/camera-phone", unknown)
    assert (reply.status, reply.json["errors"][0]["field"]) == (400, "skus")


async def test_an_sku_that_a_product_has_no_more_is_sold_no_more_but_kept(served: Served) -> None:
    await put_phone(served)
    body = {**PHONE, "skus": PHONE["skus"][:1], "revision": 1}
    after = (await operate(served, "PUT", "/products/camera-phone", body)).json
    assert [(sku["sku"], sku["active"]) for sku in after["skus"]] == [
        ("phone-black", True),
        ("phone-white", False),
    ]
    shown = (await served.get("/v1/products/camera-phone")).json["skus"]
    assert [sku["sku"] for sku in shown] == ["phone-black"]
    other = await operate(served, "PUT", "/products/other", PHONE)
    assert (other.status, other.code) == (409, "sku_taken")


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"category_id": "nowhere"}, "category_id"),
    ({"category_id": "No Slug"}, "category_id"),
    ({"brand": "\u0007bell"}, "brand"),
    ({"name": {}}, "name"),
    ({"name": {"fr": "téléphone"}}, "name"),
    ({"images": ["http://images.example/1.jpg"]}, "images"),
    ({"images": ["https://images.example/<b>.jpg"]}, "images"),
    ({"skus": [{"sku": "a b"}]}, "skus"),
    ({"skus": [{"sku": "a"}, {"sku": "a"}]}, ""),
    ({"skus": [{"sku": "a", "weight_grams": -1}]}, "skus"),
    ({"skus": [{"sku": "a", "prices": [{"amount_minor": 0, "currency": "CNY"}]}]}, "skus"),
    ({"skus": [{"sku": "a", "prices": [{"amount_minor": 1, "currency": "XYZ"}]}]}, "skus"),
    ({"attributes": {"a": "\u0007"}}, ""),  # The problem names it: attributes.a must be …
    ({"colour": "black"}, "colour"),
]


async def test_an_unfit_product_is_refused_with_the_name_of_its_field(served: Served) -> None:
    for change, field in UNFIT:
        reply = await operate(served, "PUT", "/products/camera-phone", {**PHONE, **change})
        assert (reply.status, reply.code) == (400, "invalid_request"), change
        errors = reply.json["errors"]
        assert errors[0]["field"].startswith(field), (change, errors)


async def test_categories_move_with_all_that_is_below_and_never_in_a_circle(served: Served) -> None:
    await put_category(served, "5g", "5G phones", "5G 手机", parent_id="phones")
    await put_category(served, "gifts", "Gifts", "礼品")
    moved = await operate(served, "PATCH", "/categories/phones", {"parent_id": "gifts"})
    assert moved.json["path"] == ["gifts", "phones"]
    below = (await served.get("/v1/categories/5g")).json
    assert [each["category_id"] for each in below["path"]] == ["gifts", "phones", "5g"]
    for parent in ("5g", "phones", "nowhere"):
        reply = await operate(served, "PATCH", "/categories/phones", {"parent_id": parent})
        assert (reply.status, reply.json["errors"][0]["field"]) == (400, "parent_id"), parent
    last = "5g"
    for depth in range(4, 7):
        name = f"level-{depth}"
        made = await put_category(served, name, name, name, parent_id=last)
        assert made.status == 201
        last = name
    assert (await put_category(served, "level-7", "x", "x", parent_id=last)).status == 400
    # One level further down, the lowest would be too deep.
    deeper = await operate(served, "PATCH", "/categories/gifts", {"parent_id": "digital"})
    assert deeper.status == 400
    rooted = await operate(served, "PATCH", "/categories/5g", {"parent_id": None})
    assert rooted.json["path"] == ["5g"]


async def test_a_category_in_use_is_not_removed(served: Served) -> None:
    await put_phone(served)
    for category in ("digital", "phones"):
        reply = await operate(served, "DELETE", f"/categories/{category}")
        assert (reply.status, reply.code) == (409, "category_in_use")
    await put_category(served, "empty", "Empty", "空")
    assert (await operate(served, "DELETE", "/categories/empty")).status == 200
    assert (await operate(served, "DELETE", "/categories/empty")).code == "not_found"
    assert (await served.get("/v1/categories/empty")).code == "not_found"


async def test_siblings_come_in_their_order(served: Served) -> None:
    for name, position in (("c", 2), ("a", 3), ("b", 1)):
        await put_category(served, name, name, name, parent_id="digital", position=position)
    below = (await served.get("/v1/categories/digital")).json["children"]
    assert [each["category_id"] for each in below] == ["phones", "b", "c", "a"]


async def test_ordinary_stock_goes_up_and_down_but_never_below_what_is_ordered(
    served: Served,
) -> None:
    await put_phone(served)
    path = "/stock/phone-black"
    assert (await operate(served, "GET", path)).json["stocked"] == 0
    assert (await operate(served, "PUT", path, {"units": 5})).code == "invalid_request"
    for _ in range(2):  # The same key adds once.
        reply = await operate(served, "PUT", path, {"units": 5}, idempotency_key="delivery-1")
        assert reply.json["available"] == 5
    other = await operate(served, "PUT", path, {"units": 6}, idempotency_key="delivery-1")
    assert other.code == "idempotency_mismatch"
    await served.engine.pool.execute(
        "UPDATE sale_items SET ordered = 3 WHERE sale_id = 'shop' AND sku = 'phone-black'"
    )
    short = await operate(served, "PUT", path, {"units": -3}, idempotency_key="broken-1")
    assert (short.status, short.code) == (409, "sold_out")
    fewer = await operate(served, "PUT", path, {"units": -2}, idempotency_key="broken-2")
    assert fewer.json == {
        "sku": "phone-black", "stocked": 3, "ordered": 3, "sold": 0, "available": 0
    }  # fmt: skip
    missing = await operate(served, "PUT", "/stock/nope", {"units": 1}, idempotency_key="k")
    assert missing.code == "not_found"


async def test_a_price_list_is_changed_as_a_whole_and_products_get_a_new_version(
    served: Served,
) -> None:
    await put_phone(served)
    change = {"prices": {"phone-white": 62999, "phone-black": None}}
    path = "/price-lists/USD"
    assert (await operate(served, "PATCH", path, change)).json == {"changed": 2}
    assert (await operate(served, "PATCH", path, change)).json == {"changed": 0}
    assert (await operate(served, "GET", path)).json["prices"] == {"phone-white": 62999}
    assert (await operate(served, "GET", "/products/camera-phone")).json["revision"] == 2
    unknown = await operate(served, "PATCH", path, {"prices": {"nope": 1}})
    assert (unknown.status, unknown.json["errors"][0]["field"]) == (400, "prices.nope")
    assert (await operate(served, "PATCH", "/price-lists/XYZ", change)).code == "not_found"
    first = (await operate(served, "GET", "/price-lists/CNY?limit=1")).json
    rest = (await operate(served, "GET", f"/price-lists/CNY?limit=1&after={first['next']}")).json
    assert {**first["prices"], **rest["prices"]} == {"phone-black": 449900, "phone-white": 449950}


async def test_operators_list_products_of_any_status_page_by_page(served: Served) -> None:
    await put_phone(served, status="draft")
    body = {**PHONE, "skus": []}
    await operate(served, "PUT", "/products/other-phone", body)
    first = (await operate(served, "GET", "/products?limit=1&category=phones")).json
    second = (await operate(served, "GET", f"/products?limit=1&after={first['next']}")).json
    ids = [page["products"][0]["product_id"] for page in (first, second)]
    assert ids == ["camera-phone", "other-phone"]
    drafts = (await operate(served, "GET", "/products?status=draft")).json["products"]
    assert [each["product_id"] for each in drafts] == ["camera-phone"]


async def test_unfit_parts_of_a_path_or_a_query_are_no_fault_of_ours(served: Served) -> None:
    for path, status in (
        ("/v1/products/camera-phone?currency=yuan", 400),
        ("/v1/products/camera-phone?currency=XYZ", 400),
        ("/v1/products/camera-phone?colour=black", 400),
        ("/v1/products/%00", 404),
        ("/v1/products/" + "x" * 300, 404),
        ("/v1/categories/%E6%89%8B", 404),
        ("/v1/exchange-rates?on=tomorrow", 400),
        ("/v1/exchange-rates?on=0001-01-01", 200),
    ):
        assert (await served.get(path)).status == status, path
    for path, status in (
        ("/products/UPPER", 404),
        ("/categories/a..b", 404),
        ("/products?after=eyJ4Ijo=", 400),
        ("/price-lists/CNY?after=WzFd", 400),
    ):
        method = "GET" if "?" in path else "PUT"
        body = None if "?" in path else {**PHONE, "name": {"en": "x"}}
        if path.startswith("/categories"):
            body = {"name": {"en": "x"}}
        assert (await operate(served, method, path, body)).status == status, path
