"""Shoppers for locust: they look at the sale, buy, repeat what was shed, and follow their order.

Closed-loop by nature: locust measures what users feel, not the engine's ceiling; for that there is
`doorbuster rush`. Settings: LOADTEST_TOKENS names the file that `doorbuster token --count N` wrote,
LOADTEST_SALE the sale.
"""

import itertools
import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gevent  # type: ignore[import-untyped]
from locust import FastHttpUser, between, events, task
from locust.exception import StopUser

ATTEMPTS_MAX: Final = 8  # Requests for one click.
POLLS_MAX: Final = 20  # Looks at an order that is not paid yet.
POLL_SECONDS: Final = 0.5
RETRY_AFTER_SECONDS_MAX: Final = 10.0
REPEATABLE: Final = {0, 429, 503}  # 0: no answer. The same key makes repeating safe.
# Answers a shop gives every day: no failures of the engine.
REFUSALS: Final = {"sold_out", "all_reserved", "limit_reached", "sale_paused", "sale_ended"}

SALE: Final = os.environ.get("LOADTEST_SALE", "demo")
TOKENS: Final = Path(os.environ.get("LOADTEST_TOKENS", "tokens.txt"))


class Buyers:
    """Hands each shopper the next token; every token is a buyer."""

    def __init__(self) -> None:
        self._tokens: Iterator[str] = iter(())

    def read(self, path: Path) -> None:
        if not path.exists():
            raise SystemExit(
                f"{path} is missing: doorbuster token --count 10000 > {path}, "
                "or name another file in LOADTEST_TOKENS."
            )
        self._tokens = itertools.cycle(path.read_text().split())

    def next(self) -> str:
        return next(self._tokens)


buyers = Buyers()


@events.init.add_listener  # type: ignore[untyped-decorator]
def read_tokens(**_: Any) -> None:
    """Before anybody shops, so that a missing file is one sentence."""
    buyers.read(TOKENS)


class Shopper(FastHttpUser):
    """One buyer after the other, on one connection."""

    wait_time = between(0.5, 2.0)
    network_timeout = 10.0
    connection_timeout = 5.0

    def on_start(self) -> None:
        self.skus: list[str] = []
        self.browse()
        if not self.skus:
            raise StopUser

    @task(3)
    def browse(self) -> None:
        """Looks at the sale."""
        with self.client.get(
            f"/v1/sales/{SALE}", name="/v1/sales/[sale]", catch_response=True
        ) as answer:
            if answer.status_code == 200:
                items = answer.json()["items"]
                # People buy what they see is there; once nothing is, they try their luck.
                there = [item["sku"] for item in items if item["available"]]
                self.skus = there or [item["sku"] for item in items]
                answer.success()

    @task(1)
    def shop(self) -> None:
        """Buys one unit as a new buyer, then follows the order to its payment."""
        headers = {"Authorization": f"Bearer {buyers.next()}"}
        reservation_id = self.buy(headers)
        if reservation_id is not None:
            self.follow(reservation_id, headers)

    def buy(self, headers: dict[str, str]) -> str | None:
        """The reservation's id, or None if the shop refused or never answered."""
        body = {"items": [{"sku": random.choice(self.skus), "quantity": 1}]}
        keyed = headers | {"Idempotency-Key": str(uuid.uuid4())}
        for _ in range(ATTEMPTS_MAX):
            with self.client.post(
                f"/v1/sales/{SALE}/reservations",
                json=body,
                headers=keyed,
                name="/v1/sales/[sale]/reservations",
                catch_response=True,
            ) as answer:
                if answer.status_code in {200, 201}:
                    answer.success()
                    return str(answer.json()["reservation_id"])
                if answer.status_code not in REPEATABLE:
                    judge(answer)
                    return None
                answer.failure(f"status {answer.status_code}, repeated with the same key")
                pause = min(retry_after(answer), RETRY_AFTER_SECONDS_MAX)
            gevent.sleep(pause + random.uniform(0, 0.5))
        return None

    def follow(self, reservation_id: str, headers: dict[str, str]) -> None:
        """Asks for the reservation until its order is paid, as a waiting page does."""
        for _ in range(POLLS_MAX):
            gevent.sleep(POLL_SECONDS)
            with self.client.get(
                f"/v1/reservations/{reservation_id}",
                headers=headers,
                name="/v1/reservations/[id]",
                catch_response=True,
            ) as answer:
                if answer.status_code != 200:
                    continue
                answer.success()
                if answer.json().get("order", {}).get("status") not in {None, "awaiting_payment"}:
                    return


def judge(answer: Any) -> None:
    """A refusal that a shop may give is a success of the engine; anything else is not."""
    try:
        code = answer.json().get("code")
    except ValueError:
        code = None
    if code in REFUSALS:
        answer.success()
    else:
        answer.failure(f"status {answer.status_code}, code {code}")


def retry_after(answer: Any) -> float:
    """What the engine asks for, in seconds."""
    text = (answer.headers or {}).get("Retry-After", "")
    return float(text) if text.isdigit() else 0.2
