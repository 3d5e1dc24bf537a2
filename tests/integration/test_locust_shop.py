"""The locust kit against a shop that has a queue and misbehaves on purpose."""

import asyncio
import base64
import json
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from altcha import v1 as altcha

from tests.support.locust import Told, shop

RUN = {
    "sale": "party",
    "calm_users": 2,
    "spike_users": 6,
    "calm_seconds": 1,
    "spike_seconds": 4,
    "decay_seconds": 1,
}
ALTCHA_KEY = "altcha-key"
POLLS = 2  # until it is one's turn
POLL_AT_ONCE = {"poll_after_seconds": 0}
Answer = tuple[int, dict[str, str], dict[str, object]]


class Shop:
    """Sheds every click once, loses its next answer, and keeps its word the third time.

    `proof` is the most tries a ticket costs, 0 for none; `gone` is told to all who wait.
    """

    def __init__(
        self, *, opens_in: float = 2, keeps_orders: bool = True, proof: int = 0, gone: bool = False
    ) -> None:
        self._opens_in = timedelta(seconds=opens_in)
        self.keeps_orders = keeps_orders
        self.proof = proof
        self.gone = gone
        self.solved: list[str] = []
        self.asked: Counter[str] = Counter()  # by Idempotency-Key
        self.said: dict[str, set[str]] = defaultdict(set)  # key → what was asked with it
        self.early: Counter[str] = Counter()
        self.queued: Counter[str] = Counter()
        self.out_of_turn = 0
        self.paid: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(re.findall(r"^([\w-]+): (.*)\r$", head, re.MULTILINE))
                named = {name.lower(): value for name, value in headers.items()}
                body = await reader.readexactly(int(named.get("content-length", 0)))
                method, path, _ = head.split(" ", 2)
                answer = self.answer(method, path, named, body.decode())
                if answer is None:
                    return
                _write(writer, *answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, method: str, path: str, headers: dict[str, str], body: str) -> Answer | None:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        match (method, *path.split("/")[2:]):
            case ("GET", "sales", "party"):
                said = self._sale()
            case ("GET", "sales", "party", "queue", "challenge"):
                said = self._challenge(token)
            case ("POST", "sales", "party", "queue") if self.proof and not self._proves(
                token, body
            ):
                return 400, {}, {"code": "invalid_request"}
            case ("POST", "sales", "party", "queue"):
                said = {"state": "waiting", "ticket": f"ticket-of-{token}", **POLL_AT_ONCE}
            case ("GET", "sales", "party", "queue"):
                assert headers["queue-ticket"] == f"ticket-of-{token}"
                self.queued[token] += 1
                waits = self.queued[token] < POLLS
                word = "gone" if self.gone else "waiting" if waits else "admitted"
                said = {"state": word, **POLL_AT_ONCE}
            case ("POST", "sales", "party", "reservations"):
                return self._reserve(token, headers, body)
            case ("GET", "reservations", reservation):
                order = {"order": {"status": "awaiting_payment"}} if self.keeps_orders else {}
                said = {"reservation_id": reservation, **order}
            case ("POST", "orders", order_id, "payments"):
                return self._pay(order_id, headers["idempotency-key"])
            case ("GET", "orders", order_id):
                paid = order_id in self.paid
                said = {"order_id": order_id, "status": "paid" if paid else "awaiting_payment"}
            case _:
                return 404, {}, {"code": "not_found"}
        return 200, {"Retry-After": "0"}, said

    @cached_property
    def opens_at(self) -> datetime:
        """So long after the first look at it, however long locust takes to start."""
        return datetime.now(UTC) + self._opens_in

    def _sale(self) -> dict[str, object]:
        return {
            "state": "open",
            "opens_at": self.opens_at.isoformat(),
            "server_time": datetime.now(UTC).isoformat(),
            "items": [{"sku": "cake", "available": 1000}],
        }

    def _challenge(self, token: str) -> dict[str, object]:
        made = altcha.create_challenge(
            altcha.ChallengeOptions(
                max_number=self.proof, hmac_key=ALTCHA_KEY, params={"user": token}
            )
        )
        named = ("algorithm", "challenge", "salt", "signature")
        return {name: getattr(made, name) for name in named} | {"maxnumber": made.max_number}

    def _proves(self, token: str, body: str) -> bool:
        answer = json.loads(body or "{}").get("altcha")
        if answer is None or answer in self.solved:
            return False
        self.solved.append(answer)
        payload = json.loads(base64.b64decode(answer))
        mine = altcha.extract_params(payload)["user"] == [token]
        return mine and altcha.verify_solution(payload, ALTCHA_KEY)[0]

    def _reserve(self, token: str, headers: dict[str, str], body: str) -> Answer | None:
        key = headers["idempotency-key"]
        self.said[key].add(token + body)
        has_ticket = headers.get("queue-ticket") == f"ticket-of-{token}"
        self.out_of_turn += not has_ticket or self.queued[token] < POLLS
        # The doors of this shop open a second later than its sign says.
        if datetime.now(UTC) < self.opens_at + timedelta(seconds=1):
            self.early[key] += 1
            return 425, {"Retry-After": "0"}, {"code": "not_started"}
        self.asked[key] += 1
        if self.asked[key] == 1:
            return 503, {"Retry-After": "0"}, {"code": "overloaded"}
        if self.asked[key] == 2:
            return None
        return 201 if self.asked[key] == 3 else 200, {}, {"reservation_id": f"party.{key}"}

    def _pay(self, order_id: str, key: str) -> Answer:
        self.asked[key] += 1
        if self.asked[key] == 1:
            return 429, {"Retry-After": "0"}, {"code": "throttled"}
        self.paid.add(order_id)
        return 201, {}, {"payment_id": f"pay-{key}", "status": "created"}


def _write(
    writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: dict[str, object]
) -> None:
    text = json.dumps(body)
    lines = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(text)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write(("\r\n".join(lines) + "\r\n\r\n" + text).encode())


@asynccontextmanager
async def serving(party: Shop) -> AsyncIterator[str]:
    server = await asyncio.start_server(party.serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def visit(party: Shop, folder: Path, **options: object) -> Told:
    tokens = folder / "tokens.txt"
    tokens.write_text("".join(f"buyer{number}\n" for number in range(500)))
    async with serving(party) as url:
        options = {**RUN, "host": url, "tokens": tokens, **options}
        return await asyncio.to_thread(shop, options)


async def test_shopper_queues_comes_back_with_the_same_key_and_pays_once(tmp_path: Path) -> None:
    party = Shop()

    told = await visit(party, tmp_path, abandon=0, spike_seconds=6)

    tally = told.tally
    assert tally["acknowledged"] == tally["ordered"] == tally["clicks"] > 0, told.text
    assert 0 < tally["paid"] <= len(party.paid)
    assert (tally["unknown"], tally["missing"]) == (0, 0)
    assert "Every acknowledged reservation was seen as an order." in told.text
    # One key: one buyer, one wish, however often it was asked.
    assert all(len(said) == 1 for said in party.said.values())
    assert all(party.asked[key] >= 3 for key in party.said)
    assert sum(party.early.values()) > 0
    assert party.out_of_turn == 0
    # What was shed or lost is a failure of the engine, an early click is not.
    assert told.code == 1
    for failure in ("503 overloaded", "no answer", "429 throttled"):
        assert failure in told.text
    assert "425" not in told.text


async def test_promise_without_an_order_fails_the_run(tmp_path: Path) -> None:
    party = Shop(opens_in=-60, keeps_orders=False)

    told = await visit(party, tmp_path, settle_seconds=1, spike_seconds=2)

    assert told.code == 1
    assert told.tally["missing"] == told.tally["acknowledged"] > 0
    assert told.tally["ordered"] == 0
    assert "NOT every promise was seen to be kept." in told.text
    assert "  party." in told.text


async def test_everybody_walks_away_where_all_abandon(tmp_path: Path) -> None:
    party = Shop(opens_in=-60)

    told = await visit(party, tmp_path, abandon=1, spike_seconds=2)

    assert told.tally["abandoned"] > 0
    assert told.tally["paid"] == 0
    assert party.paid == set()


async def test_proof_of_work_is_fetched_and_solved_for_each_ticket(tmp_path: Path) -> None:
    party = Shop(opens_in=-60, proof=3000)

    told = await visit(party, tmp_path, spike_seconds=2)

    tally = told.tally
    assert tally["acknowledged"] == tally["ordered"] > 0, told.text
    assert tally["queued"] >= tally["clicks"] == len(party.said)
    assert len(set(party.solved)) == len(party.solved) >= tally["queued"]
    assert "400" not in told.text


async def test_shopper_who_is_told_gone_goes_home_without_a_click(tmp_path: Path) -> None:
    party = Shop(opens_in=-60, gone=True)

    told = await visit(party, tmp_path, spike_seconds=2)

    assert told.tally["gone"] > 0
    assert told.tally["clicks"] == 0
    assert not party.said
    # Turned away is no failure.
    assert told.code == 0, told.text
    assert "nothing is proved" in told.text
