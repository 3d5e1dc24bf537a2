"""A buyer who owns one of everything that a buyer can own, made through the API."""

from typing import Final

from tests.support.front import Served

EMAIL: Final = "zebulon@quist.example"
PASSWORD: Final = "correct horse battery"
# What an answer to anybody else must not say.
SECRETS: Final = (
    "Zebulon Quist",
    "zebulon@quist.example",
    "+86 139 9999 0000",
    "龙猫街 7",
    "a quiet text",
    "QUIET-COUPON",
)
CATALOGUE: Final = """
    INSERT INTO categories (category_id, path, name) VALUES ('phones', '{phones}', '{}');
    INSERT INTO products (product_id, category_id, brand, name, description)
    VALUES ('phone', 'phones', 'Lan', '{"en": "Phone"}', '{}');
    INSERT INTO skus (sku, product_id) VALUES ('phone-black', 'phone');
"""


async def register(served: Served, email: str, name: str) -> str:
    """A user's id."""
    body = {"email": email, "password": PASSWORD, "name": name}
    reply = await served.post("/v1/users", body=body)
    assert reply.status == 201, reply.body
    return str(reply.json["user_id"])


async def own_one_of_each(served: Served, user: str) -> dict[str, str]:
    """The ids of one of everything that a user can own, by the name of the path's part."""
    await served.sell("demo", per_user_max=9)
    await served.engine.pool.execute(CATALOGUE)
    order = await ordered(served, user, "first")
    delivered = await ordered(served, user, "second")
    payment = await made(
        served, user, f"/v1/orders/{order}/payments", {"provider": "sandbox"}, "payment_id"
    )
    await deliver(served, delivered)
    await fill(served, user)
    address = {
        "name": "Zebulon Quist",
        "phone": "+86 139 9999 0000",
        "country": "CN",
        "region": "上海市",
        "city": "上海市",
        "street": "龙猫街 7",
        "postal_code": "200003",
    }
    return {
        "order": order,
        "reservation": order,
        "payment": payment,
        "address": await made(served, user, "/v1/addresses", address, "address_id"),
        "return": await made(
            served,
            user,
            f"/v1/orders/{delivered}/returns",
            {"reason": "changed_mind", "text": "a quiet text"},
            "return_id",
        ),
        "review": await reviewed(served, user),
        "session": await session_of(served),
    }


async def fill(served: Served, user: str) -> None:
    """The wallet and the cart, which have no ids."""
    terms = {"kind": "percent", "name": {"en": "Quiet"}, "currencies": {"CNY": {}}}
    offer = {"terms": {**terms, "basis_points": 1000}, "by_code": True, "public": False}
    made = await served.operate("/promotions", offer)
    assert made.status == 201, made.body
    path = f"/promotions/{made.json['promotion_id']}/codes"
    assert (await served.operate(path, {"code": "QUIET-COUPON"})).status < 300
    claim = await served.post("/v1/coupons", user=user, body={"code": "QUIET-COUPON"})
    assert claim.status < 300, claim.body
    line = {"sale_id": "demo", "sku": "phone-black"}
    assert (await served.post("/v1/cart/lines", user=user, body=line)).status < 300


async def ordered(served: Served, user: str, key: str) -> str:
    reply = await served.reserve(user, key=key)
    assert reply.status == 201, reply.body
    await served.drain()
    return str(reply.json["reservation_id"])


async def made(served: Served, user: str, path: str, body: object, name: str) -> str:
    """The id of what a POST makes."""
    reply = await served.post(path, user=user, body=body)
    assert reply.status == 201, (path, reply.body)
    return str(reply.json[name])


async def deliver(served: Served, order: str) -> None:
    """As payer and carrier would have moved it."""
    for status in ("paid", "shipped", "delivered"):
        await served.engine.pool.execute(
            "UPDATE orders SET status = $2 WHERE reservation_id = $1", order.split(".")[1], status
        )


async def reviewed(served: Served, user: str) -> str:
    body = {"sku": "phone-black", "rating": 5, "text": "It rings, and it stays quiet."}
    return await made(served, user, "/v1/reviews", body, "review_id")


async def session_of(served: Served) -> str:
    body = {"email": EMAIL, "password": PASSWORD}
    token = (await served.post("/v1/sessions", body=body)).json["token"]
    reply = await served.get("/v1/sessions", authorization=f"Bearer {token}")
    return str(reply.json["sessions"][0]["session_id"])
