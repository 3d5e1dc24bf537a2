"""kill -9 of a front and of Redis while people wait in a room: everybody keeps his place and gets his turn."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.tokens import Tokens
from engine.clock import SystemClock
from engine.runtime import read_secrets
from tests.support.mortal import Shop, start
from tests.support.program import free_port, get, run, until
from tests.support.sales import sale_document

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

SALE = "patient"
VISITORS = 40
PACE = 4  # People per second: the killing is done long before the last is served.


class Visitor:
    """Somebody in the room, as his browser sees it."""

    def __init__(self, shop: Shop, token: str) -> None:
        self._url = f"{shop.url}/v1/sales/{SALE}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self.numbers: set[int] = set()
        self.state = ""

    def enter(self) -> None:
        self._hear(*get(f"{self._url}/queue", self._headers, "POST"))
        assert self.state, "no ticket"

    def poll(self) -> None:
        self._hear(*get(f"{self._url}/queue", self._headers))

    def buy(self) -> str:
        """The code of the refusal, or nothing; an answer that did not come is asked for again."""
        headers = self._headers | {"Idempotency-Key": "once", "Content-Type": "application/json"}
        wish = '{"items": [{"sku": "phone-black", "quantity": 1}]}'
        status, text = get(f"{self._url}/reservations", headers, "POST", wish)
        if status in {200, 201}:
            return ""
        return str(json.loads(text)["code"]) if text else "unavailable"

    def _hear(self, status: int, text: str) -> None:
        if status not in {200, 201}:
            return  # A front that just died, or one that waits for Redis.
        said: dict[str, Any] = json.loads(text)
        self.state = said["state"]
        self.numbers.add(said["number"])
        self._headers["Queue-Ticket"] = said["ticket"]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = start(tmp_path / "var", free_port())
    yield shop
    shop.up.stop()


def test_deaths_in_mid_queue_cost_nobody_his_place(shop: Shop, tmp_path: Path) -> None:
    visitors = enter_a_room(shop, tmp_path)
    order: list[Visitor] = []

    def all_have_polled() -> bool:
        for visitor in visitors:
            if visitor not in order:
                visitor.poll()
                if visitor.state == "admitted":
                    order.append(visitor)
        return len(order) == len(visitors)

    until(lambda: all_have_polled() or bool(order), "the first is served")
    assert len(order) < VISITORS / 2, "the test is too slow to kill anything in mid-queue"
    shop.kill("front-0")
    shop.kill("Valkey")
    until(all_have_polled, "everybody is served")

    assert [visitor.numbers for visitor in visitors] == [{n + 1} for n in range(VISITORS)]
    for visitor in visitors:
        until(lambda visitor=visitor: visitor.buy() == "", "he buys")
    checked = run("check", shop.env)
    assert checked.returncode == 0, checked.stdout


def enter_a_room(shop: Shop, folder: Path) -> list[Visitor]:
    """As many visitors as were asked for, one number after the other."""
    document = folder / "sale.json"
    document.write_bytes(sale_document(SALE, {"phone-black": 2 * VISITORS}))
    assert run(f"sale create --file {document}", shop.env).returncode == 0
    assert run(f"admission set {SALE} --on --pace {PACE}", shop.env).returncode == 0
    secrets = read_secrets(Path(shop.env["DOORBUSTER_DATA_DIR"]))
    assert secrets is not None
    tokens = Tokens(secrets.secret, SystemClock())
    visitors = [Visitor(shop, tokens.issue(f"visitor-{n}")) for n in range(VISITORS)]
    until(lambda: _asks_for_tickets(visitors[0]), "fronts know of the room")
    for visitor in visitors:
        visitor.enter()
    return visitors


def _asks_for_tickets(visitor: Visitor) -> bool:
    """Both fronts do, most likely: each connection may reach either."""
    return {visitor.buy() for _ in range(16)} == {"ticket_required"}
