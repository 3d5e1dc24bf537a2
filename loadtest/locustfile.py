"""Locust users of one sale: look, reserve, ask what became of it, now and then click twice.

`make load` runs it against the running engine. By hand, with one token per line in tokens.txt:

    LOADTEST_TOKENS=tokens.txt LOADTEST_SALE=demo \
        locust -f loadtest/locustfile.py --host http://127.0.0.1:8080
"""

import itertools
import os
import random
import uuid
from pathlib import Path

from locust import FastHttpUser, between, task

SALE = os.environ.get("LOADTEST_SALE", "demo")
TOKENS = Path(os.environ.get("LOADTEST_TOKENS", "tokens.txt"))
DOUBLE_CLICKS = 0.1  # Share of reservations that are sent twice.
# Answers of an engine at work: taken, replayed, gone, shed. Anything else is a failure.
EXPECTED = frozenset({200, 201, 409, 410, 425, 429, 503})

_tokens = itertools.cycle(TOKENS.read_text().split())


class Buyer(FastHttpUser):
    """One buyer with a token of their own."""

    wait_time = between(0.5, 1.5)

    def on_start(self) -> None:
        self.auth = {"Authorization": f"Bearer {next(_tokens)}"}
        self.skus = [item["sku"] for item in self.client.get(f"/v1/sales/{SALE}").json()["items"]]
        self.reservation: str | None = None

    @task(3)
    def look(self) -> None:
        self.client.get(f"/v1/sales/{SALE}", name="sale")

    @task(5)
    def reserve(self) -> None:
        key, sku = uuid.uuid4().hex, random.choice(self.skus)
        for _ in range(2 if random.random() < DOUBLE_CLICKS else 1):
            self._click(key, sku)

    @task(2)
    def follow(self) -> None:
        if self.reservation is not None:
            path = f"/v1/reservations/{self.reservation}"
            self.client.get(path, headers=self.auth, name="reservation")

    def _click(self, key: str, sku: str) -> None:
        with self.client.post(
            f"/v1/sales/{SALE}/reservations",
            json={"items": [{"sku": sku, "quantity": 1}]},
            headers=self.auth | {"Idempotency-Key": key},
            name="reserve",
            catch_response=True,
        ) as answer:
            if answer.status_code in EXPECTED:
                answer.success()
            if answer.status_code in {200, 201}:
                self.reservation = answer.json()["reservation_id"]
