"""A buyer's day at the demo shop, from the first search to the money back, over real HTTP.

Every process is real: fronts, worker, Valkey, Postgres, the gateways and the carrier to practise with.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import curl
from tests.support.program import UpProcess, environ, free_port, run, until
from tests.support.shopper import Shopper

README = Path(__file__).parents[2] / "README.md"
AND_TELL = """\nprintf '["%s", "%s"]' "$TOKEN" "$ORDER"\n"""
CURL = shlex.quote(str(curl.__file__))
PASSWORD = "correct horse battery staple"
CHINA = {
    "name": "林晓",
    "phone": "13800000000",
    "country": "CN",
    "region": "浙江",
    "city": "杭州",
    "street": "文一西路 1 号",
    "postal_code": "310000",
}
AMERICA = {
    "name": "Lin Xiao",
    "phone": "+1 212 555 0100",
    "country": "US",
    "region": "NY",
    "city": "New York",
    "street": "1 Main St",
    "postal_code": "10001",
}


class Demo:
    """The running demo shop, its operator, and the gateways beside it."""

    def __init__(self, up: UpProcess, env: dict[str, str]) -> None:
        self.env = env
        ready = next(line for line in up.lines if line.startswith("ready "))
        self.url = ready.removeprefix("ready ")
        token = up.lines[up.lines.index("operator token (24 h):") + 1]
        self.operator = Shopper(self.url, token=token)
        said = run("sandbox --print-settings", env)
        assert said.returncode == 0, said.stderr
        self.gateways = tomllib.loads(said.stdout)

    def newest_code(self, email: str) -> str:
        """What the newest mail to that address asks to be entered."""

        def mailed() -> re.Match[str] | None:
            for mail in reversed(run("mails", self.env).stdout.split("\nmail ")):
                if email in mail:
                    return re.search(r"\b[\w-]{43}\b", mail)
            return None

        until(lambda: mailed() is not None, f"a mail to {email}")
        found = mailed()
        assert found is not None
        return found[0]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    data_dir: Path = tmp_path_factory.mktemp("day")
    env = environ(
        data_dir,
        port=str(free_port()),
        front_processes="1",
        carrier_step_seconds="0.1",
        demo_products="2100",
    )
    up = UpProcess(env, "--demo")
    try:
        up.wait_until_ready()
        yield Demo(up, env)
    finally:
        up.stop()


def register(demo: Demo, name: str, language: str, currency: str) -> Shopper:
    """A buyer whose e-mail is proven, logged in."""
    buyer = Shopper(demo.url, language, currency)
    email = f"{name}@example.com"
    buyer.post("/v1/users", {"email": email, "password": PASSWORD, "name": name})
    buyer.post("/v1/users/verification", {"token": demo.newest_code(email)})
    session = buyer.post("/v1/sessions", {"email": email, "password": PASSWORD})
    buyer.token = session["token"]
    assert buyer.get("/v1/users/me")["email_verified"] is True
    return buyer


def find_phone(buyer: Shopper, query: str) -> tuple[str, str]:
    """(product, SKU) of the first phone that is found, after its page and its reviews were read."""
    found = buyer.get("/v1/products", q=query, in_stock="true", currency=buyer.currency)
    product_id = found["products"][0]["product_id"]
    page = buyer.get(f"/v1/products/{product_id}", currency=buyer.currency)
    assert page["category"][-1]["category_id"] == "phones"
    assert page["name"] == found["products"][0]["name"]
    assert ("手机" in page["name"]) == (buyer.language == "zh-CN")
    reviews = buyer.get(f"/v1/products/{product_id}/reviews")
    assert reviews["rating"]["count"] == len(reviews["reviews"])
    return product_id, page["skus"][0]["sku"]


def put_sale_up(demo: Demo, name: str, sku: str, currency: str) -> str:
    """A sale of that SKU which opens in a moment."""
    now = datetime.now(UTC)
    document = {
        "sale_id": f"day-{name}",
        "name": {"zh-CN": "双十一", "en": "Singles' Day"},
        "opens_at": (now + timedelta(seconds=2)).isoformat(),
        "closes_at": (now + timedelta(hours=1)).isoformat(),
        "per_user_max": 1,
        "reservation_seconds": 900,
        "auto_capture": False,
        "items": [
            {
                "sku": sku,
                "name": {"zh-CN": "手机", "en": "Phone"},
                "units": 10,
                "price": {"amount_minor": 99900, "currency": currency},
            }
        ],
    }
    sale_id: str = demo.operator.post("/v1/admin/sales", document)["sale_id"]
    return sale_id


def hand_out_coupon(demo: Demo, currency: str) -> str:
    """A code that takes 10 % off, once."""
    terms = {
        "kind": "percent",
        "name": {"zh-CN": "九折", "en": "Ten percent off"},
        "basis_points": 1000,
        "currencies": {currency: {}},
    }
    body = {"terms": terms, "by_code": True, "per_user_max": 1}
    promotion = demo.operator.post("/v1/admin/promotions", body)
    path = f"/v1/admin/promotions/{promotion['promotion_id']}/codes"
    code: str = demo.operator.post(path, {"count": 1, "uses_max": 1})["codes"][0]
    return code


def buy(buyer: Shopper, sale_id: str, sku: str, coupon: str, address: dict[str, str]) -> Any:
    """The order of the one in the cart, as soon as the sale lets it be bought."""
    buyer.put(f"/v1/cart/lines/{sale_id}/{sku}", {"quantity": 1})
    address_id = buyer.post("/v1/addresses", address)["address_id"]
    wishes = {
        "sale_id": sale_id,
        "coupons": [coupon],
        "address_id": address_id,
        "shipping_method": "standard",
    }
    early = buyer.call("POST", "/v1/cart/checkout", wishes, idempotency_key="day")
    answers = [early]

    def bought() -> bool:
        answers.append(buyer.call("POST", "/v1/cart/checkout", wishes, idempotency_key="day"))
        assert answers[-1].status in {201, 425}, answers[-1]
        return answers[-1].status == 201

    assert (early.status, early.json["code"]) == (425, "not_started"), early
    assert int(early.headers["Retry-After"]) >= 1
    until(bought, "the sale opens")
    order = answers[-1].json
    assert order["quote"]["discount_minor"] == 9990
    assert order["quote"]["subtotal_minor"] == 99900
    assert order["amount"]["currency"] == buyer.currency
    assert buyer.get("/v1/cart")["lines"] == 0
    return order


def pay(demo: Demo, buyer: Shopper, order_id: str, provider: str) -> str:
    """The payment's id, once the order is paid."""
    payment = buyer.post(
        f"/v1/orders/{order_id}/payments", {"provider": provider}, idempotency_key="pay"
    )
    path = f"/v1/payments/{payment['payment_id']}"
    if provider != "sandbox":
        action = buyer.wait(path, lambda shown: shown.get("action"), "what the buyer has to do")
        approve(demo, action)
    buyer.wait(f"/v1/orders/{order_id}", lambda order: order["status"] == "paid", "paid")
    assert buyer.get(path)["status"] == "captured"
    assert "action" not in buyer.get(path)
    return str(payment["payment_id"])


def approve(demo: Demo, action: dict[str, str]) -> None:
    """The buyer's part: the page that is opened, the code that is read, the card that is given."""
    match action["kind"]:
        case "redirect":
            url = action["url"]
        case "qr_code":
            url = action["code"]
        case "client_secret":
            root = demo.gateways["stripe_url"].rstrip("/")
            url = f"{root}/pay/{action['client_secret']}"
    with urllib.request.urlopen(url, b"decision=approve", timeout=30) as answer:
        assert answer.status == 200


def ship(demo: Demo, buyer: Shopper, order_id: str) -> None:
    """Sent off by the operator, carried to the door."""
    queue = demo.operator.get("/v1/admin/fulfilment")["orders"]
    assert order_id in {order["order_id"] for order in queue}
    demo.operator.post(
        f"/v1/admin/orders/{order_id}/shipments", {"carrier": "sandbox"}, idempotency_key="ship"
    )
    path = f"/v1/orders/{order_id}"
    buyer.wait(path, lambda order: order["status"] == "delivered", "delivered")
    (shipment,) = buyer.get(path)["shipments"]
    assert shipment["tracking_number"]


def review(buyer: Shopper, product_id: str, sku: str) -> None:
    before = buyer.get(f"/v1/products/{product_id}/reviews")["rating"]["count"]
    buyer.post("/v1/reviews", {"sku": sku, "rating": 4, "text": "屏幕好, battery lasts."})
    assert buyer.get(f"/v1/products/{product_id}/reviews")["rating"]["count"] == before + 1


def send_back(demo: Demo, buyer: Shopper, order_id: str, payment_id: str) -> None:
    """Returned, received, refunded by the provider."""
    asked = buyer.post(f"/v1/orders/{order_id}/returns", {"reason": "changed_mind"})
    path = f"/v1/admin/returns/{asked['return_id']}"
    demo.operator.post(f"{path}/approve")
    demo.operator.post(f"{path}/received")
    buyer.wait(f"/v1/orders/{order_id}", lambda order: order["status"] == "refunded", "refunded")
    assert buyer.get(f"/v1/payments/{payment_id}")["status"] == "refunded"


@pytest.mark.parametrize(
    ("provider", "language", "currency"),
    [
        ("alipay", "zh-CN", "CNY"),
        ("wechatpay", "zh-CN", "CNY"),
        ("stripe", "zh-CN", "CNY"),
        ("sandbox", "zh-CN", "CNY"),
        ("stripe", "en", "USD"),
    ],
)
def test_a_buyers_day(demo: Demo, provider: str, language: str, currency: str) -> None:
    name = f"{provider}-{currency}".lower()
    buyer = register(demo, name, language, currency)
    product_id, sku = find_phone(buyer, "手机" if language == "zh-CN" else "phone")
    sale_id = put_sale_up(demo, name, sku, currency)
    coupon = hand_out_coupon(demo, currency)

    order = buy(buyer, sale_id, sku, coupon, CHINA if currency == "CNY" else AMERICA)
    order_id = order["order_id"]
    payment_id = pay(demo, buyer, order_id, provider)
    ship(demo, buyer, order_id)
    review(buyer, product_id, sku)
    send_back(demo, buyer, order_id, payment_id)

    told = [moment["type"] for moment in buyer.get(f"/v1/orders/{order_id}")["timeline"]]
    steps = ["order.created", "order.paid", "order.shipped", "order.delivered", "order.refunded"]
    assert [step for step in told if step in steps] == steps
    refused = buyer.call("GET", f"/v1/coupons/{coupon}")
    assert refused.status == 200, "the refund gave the coupon back"


def answers_in(text: str) -> list[Any]:
    """The JSON documents that stand there one after another."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def test_the_ten_calls_of_the_readme_work_as_printed(demo: Demo, tmp_path: Path) -> None:
    calls = re.search(r"```bash\n(SHOP=.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert calls is not None
    script = calls[1].replace("http://127.0.0.1:8080", demo.url)
    done = subprocess.run(
        ["bash", "-euc", script + AND_TELL],
        env=os.environ | {"PATH": f"{curl_folder(tmp_path)}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *answers, (token, order_id) = answers_in(done.stdout)
    assert calls[1].count("curl ") == 10
    found, product, user, cart, quote, payment, order = answers
    assert all("手机" in each["name"] for each in found["products"])
    assert product["name"] == "Noise-cancelling earbuds"
    assert (user["name"], cart["units"]) == ("Lin", 2)
    assert quote["quote"]["discounts"][0]["code"] == "WELCOME"
    assert payment["amount"]["amount_minor"] == quote["quote"]["total_minor"]
    assert order["order_id"] == order_id
    lin = Shopper(demo.url, token=token)
    lin.wait(f"/v1/orders/{order_id}", lambda shown: shown["status"] == "paid", "paid")


def curl_folder(folder: Path) -> Path:
    """Where a `curl` is, for machines that have none: the one of tests/support."""
    if not shutil.which("curl"):
        stand_in = folder / "curl"
        stand_in.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {CURL} "$@"\n')
        stand_in.chmod(0o755)
    return folder


def test_nothing_is_amiss_after_such_days(demo: Demo) -> None:
    checked = run("check", demo.env)
    assert checked.returncode == 0, checked.stdout
