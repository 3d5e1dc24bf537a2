"""A small shop to fill carts from: mugs, plates and a gift card, in two currencies."""

from typing import Any

from api.tokens import Role
from engine.reconciler import check
from tests.support.front import Reply, Served

GRAMS = {"mug": 400, "plate": 900, "card": 0}
CNY = {"mug": 3000, "plate": 5000, "card": 10000}
USD = {"mug": 500, "plate": 800}


async def open_shop(served: Served, **stock: int) -> None:
    """The catalogue, and that many units of each."""
    pool = served.engine.pool
    await pool.execute(
        "INSERT INTO categories (category_id, path, name) VALUES ('home', '{home}', $1)",
        {"en": "Home", "zh-CN": "家居"},
    )
    for sku, grams in GRAMS.items():
        await pool.execute(
            "INSERT INTO products (product_id, category_id, brand, name, description)"
            " VALUES ($1, 'home', 'Ming', $2, '{}')",
            f"the-{sku}",
            {"en": sku.title(), "zh-CN": f"商品{sku}"},
        )
        await pool.execute(
            "INSERT INTO skus (sku, product_id, options, weight_grams) VALUES ($1, $2, $3, $4)",
            sku,
            f"the-{sku}",
            {"colour": {"en": "blue", "zh-CN": "蓝色"}},
            grams,
        )
    for currency, prices in (("CNY", CNY), ("USD", USD)):
        await pool.executemany(
            "INSERT INTO sku_prices VALUES ($1, $2, $3)",
            [(sku, currency, price) for sku, price in prices.items()],
        )
    for sku, units in stock.items():
        await served.engine.shelf.restock(sku, units, "op")


async def put(
    served: Served, sku: str, quantity: int = 1, *, sale: str = "shop", **options: Any
) -> Reply:
    """Sets a line."""
    path = f"/v1/cart/lines/{sale}/{sku}"
    return await served.call("PUT", path, body={"quantity": quantity}, **options)


def lines_of(reply: Reply) -> dict[str, dict[str, Any]]:
    """By SKU."""
    assert reply.status == 200, reply.body
    return {line["sku"]: line for group in reply.json["groups"] for line in group["lines"]}


def quantities(reply: Reply) -> dict[str, int]:
    return {sku: line["quantity"] for sku, line in lines_of(reply).items()}


def cookie_of(reply: Reply) -> str:
    """The guest's cookie, as a browser would send it back."""
    return reply.headers["Set-Cookie"].partition(";")[0]


async def check_out(served: Served, user: str = "u1", key: str = "c1", **body: Any) -> Reply:
    return await served.post("/v1/cart/checkout", user=user, body=body, idempotency_key=key)


async def counters(served: Served, sku: str, sale: str = "shop") -> tuple[int, int, int]:
    """(stocked, ordered, sold) in Postgres."""
    row = await served.engine.pool.fetchrow(
        "SELECT stocked, ordered, sold FROM sale_items WHERE sale_id = $1 AND sku = $2", sale, sku
    )
    return row["stocked"], row["ordered"], row["sold"]


async def check_books(served: Served) -> None:
    """What `doorbuster check` proves."""
    findings = await check(served.engine, settle_seconds=0)
    assert [finding.line for finding in findings if not finding.ok] == []


async def coupon(
    served: Served, code: str = "SPRING", off_minor: int = 500, uses_max: int | None = 1
) -> None:
    """A coupon that takes an amount off; `uses_max` is of all buyers together."""
    terms = {
        "kind": "amount",
        "name": {"en": code},
        "currencies": {"CNY": {"off_minor": off_minor}},
    }
    made = await served.operate("/promotions", {"terms": terms, "by_code": True})
    assert made.status == 201, made.body
    path = f"/promotions/{made.json['promotion_id']}/codes"
    reply = await served.operate(path, {"code": code, "uses_max": uses_max})
    assert reply.status == 201, reply.body


async def points(served: Served, user: str, count: int) -> None:
    """Points that may pay for half of the goods: 100 of them are 1 CNY."""
    rule = {"earned_per_thousand": 0, "points_per_major": 100, "share_max_percent": 50}
    path = "/v1/admin/points/rules/CNY"
    reply = await served.call("PUT", path, user="op-1", role=Role.OPERATOR, body=rule)
    assert reply.status == 200, reply.body
    grant = {"points": count, "reason": "a gift"}
    given = await served.operate(f"/points/users/{user}/grants", grant, idempotency_key="g")
    assert given.status == 200, given.body


async def redeemed(served: Served, user: str = "u1", code: str = "SPRING") -> tuple[int, int]:
    """(uses of the coupon that hold, balance of the buyer's points)."""
    pool = served.engine.pool
    taken = "SELECT count(*) FROM redemptions WHERE code = $1 AND state = 'taken'"
    used = await pool.fetchval(taken, code)
    capped = "SELECT used FROM coupons WHERE code = $1 AND uses_max IS NOT NULL"
    assert await pool.fetchval(capped, code) in {None, used}
    balance = await pool.fetchval("SELECT balance FROM point_balances WHERE user_id = $1", user)
    return used, balance or 0
