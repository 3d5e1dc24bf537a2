"""The same calls through the gate and through aiohttp alone: answers, effects and counts are alike.

Two sales of every kind are prepared alike, one per door. DOORBUSTER_DOOR_CALLS and
DOORBUSTER_FUZZ_SEED choose how many calls, and which.
"""

import json
import os
import random
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from redis.asyncio import Redis

from engine.servers import EmbeddedValkey
from ext.gate import GateConnection
from tests.gate.streams import request
from tests.support.front import SECRET, RawConnection, Served, serve
from tests.support.rooms import Visitors, open_room

CALLS = int(os.environ.get("DOORBUSTER_DOOR_CALLS", "1500"))
SALES = ("open", "dear", "sold", "held", "early", "late", "paused", "closed", "room",
         "unknown", "-bad")  # fmt: skip
VISITORS = 12
UNSERVED = 1_000_000  # A number that nobody has been given.
KEYS = ("", "k", "k" * 128, "k" * 129, "é", "a b", " k ", "~", None)
TYPES = ("application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "text/plain",
         "", None)  # fmt: skip
ONE = b'{"items":[{"sku":"a","quantity":1}]}'
BODIES = (
    ONE, ONE, ONE, ONE, ONE, b'{"items":[{"quantity":1,"sku":"a"}]}', ONE.replace(b"1", b"2"),
    b'{"items":[{"sku":"b","quantity":1},{"sku":"a","quantity":1}]}',
    b'{"items":[{"sku":"a","quantity":1},{"sku":"a","quantity":1}]}',
    b'{"items":[{"sku":"z","quantity":1}]}', b'{"items":[]}', b'{"items":[{"sku":"a"}]}',
    b'{"items":[{"sku":"a","quantity":1}],"x":1}', b'{"items":[{"sku":"a","quantity":"1"}]}',
    b'{"items":[{"sku":"a","quantity":0}]}', b'{"items":[{"sku":"a\\u0000","quantity":1}]}',
    b"\xef\xbb\xbf" + ONE, b"", b"{", b"\xff", b"[]", ONE.ljust(65_536), ONE.ljust(65_537),
)  # fmt: skip
EXTRAS = (
    (), (), (), (), ("X-Request-Id: a-name-of-its-own",), ("X-Request-Id: short",),
    ("X-Request-Id: \xfc\xfc\xfc\xfc\xfc\xfc\xfc\xfc",), ("Accept: */*", "User-Agent: u"),
    ("Connection: keep-alive",), ("Idempotency-Key: other",), ("Authorization: Bearer x",),
    ("X-Request-Id: twice-twice", "X-Request-Id: twice-again"), ("Accept-Encoding: gzip",),
    ("Content-Encoding: gzip",), ("Cookie: a=b",),
)  # fmt: skip
ENTRIES = (b"", b"", b"", b"{}", b'{"altcha":"eyJ9"}', b'{"altcha":"' + b"x" * 5000 + b'"}',
           b'{"captcha":7}', b'{"x":1}', b"[]", b"{", b"\xff", b"{}".ljust(65_537))  # fmt: skip
TARGETS = ("{}", "{}?x=1", "{}/", "{}#x", "/%76{}", "{}%20", "//{}")


@dataclass
class Door:
    """One way in, its connection, and the names of things as both doors share them."""

    name: str
    served: Served
    connection: RawConnection | None = None
    reservations: list[str] = field(default_factory=list)
    visitors: Visitors = field(init=False)

    async def answer(self, data: bytes) -> bytes:
        if self.connection is None or self.connection.reader.at_eof():
            await self.leave()
            self.connection = await self.served.raw()
        self.connection.send(data)
        said = await self._read(data.startswith(b"HEAD"))
        if b"\r\nConnection: close\r\n" in said or said.startswith(b"HTTP/1.0"):
            await self.leave()
        return said

    async def leave(self) -> None:
        if self.connection is not None:
            self.connection.writer.close()
            self.connection = None

    async def _read(self, is_head: bool) -> bytes:
        assert self.connection is not None
        if is_head:
            return await self.connection.reader.readuntil(b"\r\n\r\n")
        return await self.connection.answer()


@pytest.fixture
async def doors(
    redis: Redis, valkey: EmbeddedValkey, postgres_url: str
) -> AsyncIterator[tuple[Door, Door]]:
    """Both doors on one Redis and one Postgres, each with sales of its own."""
    async with AsyncExitStack() as stack:
        made = []
        for name, gate in (("g", True), ("n", False)):
            served = await stack.enter_async_context(
                serve(valkey.url, postgres_url, gate=gate, throttle_burst=100_000)
            )
            await prepare(served, name)
            made.append(Door(name, served))
            made[-1].visitors = await enter(served, f"{name}-room", stock={"a": 100_000})
        yield made[0], made[1]
        for door in made:
            await door.leave()


async def prepare(served: Served, name: str) -> None:
    stock = {"a": 100_000, "b": 100_000}
    await served.sell(f"{name}-open", stock=stock, per_user_max=8)
    await served.sell(f"{name}-dear", stock=stock, per_user_max=1)
    await served.sell(f"{name}-sold", stock={"a": 1}, per_user_max=1)
    await served.sell(f"{name}-held", stock={"a": 2, "b": 1})
    await served.sell(f"{name}-early", stock=stock, opens_in=3600)
    await served.sell(f"{name}-late", stock=stock, opens_in=-60, closes_in=-30)
    for sale, verb in (("paused", "pause"), ("closed", "close")):
        await served.sell(f"{name}-{sale}", stock=stock)
        await served.operate(f"/sales/{name}-{sale}/{verb}")


async def enter(served: Served, sale: str, **changes: Any) -> Visitors:
    """A sale with a room, and its visitors, all of them admitted."""
    await served.sell(sale, per_user_max=8, **changes)
    visitors = await open_room(served, sale, admission_seconds=3600)
    for number in range(VISITORS):
        await visitors.enter(f"u{number}")
    await visitors.are_served(VISITORS)
    return visitors


def a_ticket(door: Door, dice: random.Random, *, polls: bool) -> str | None:
    """A Queue-Ticket header, for a good part of calls that of who calls."""
    visitors, user = door.visitors, f"u{dice.randrange(VISITORS)}"
    good = visitors.tickets[user].decode()
    return dice.choice((
        *(good,) * 6, good[:-1], f"{good[:-4]}AAAA", "a.b.c", "", None, None, "\xfc", "x" * 5000,
        visitors.signed(user, 3, seconds=-1), visitors.signed(user, 3, sale="other"),
        door.served.tokens.issue(user), good if polls else visitors.signed(user, UNSERVED),
    ))  # fmt: skip


def tokens_of(served: Served, dice: random.Random) -> str | None:
    """An Authorization header, right in most cases."""
    token = served.tokens.issue(f"u{dice.randrange(12)}")
    claims = {"sub": "u1", "exp": 4_000_000_000}
    return dice.choice((
        *(f"Bearer {token}",) * 8,
        f"bearer {token}", f"BEARER   {token} ", f"Basic {token}", token, "Bearer", "Bearer ", "",
        f"Bearer {token[:-1]}", f"Bearer {token}=", f"Bearer {token[:-4]}AAAA", "Bearer a.b.c",
        f"Bearer {served.tokens.issue('u1', seconds=-1)}",
        f"Bearer {jwt.encode(claims, 'forged' * 8)}", f"Bearer {jwt.encode(claims, SECRET)}",
        f"Bearer {jwt.encode(claims, SECRET, headers={'kid': '1'})}",
        f"Bearer {jwt.encode({**claims, 'sub': ''}, SECRET)}",
        f"Bearer {jwt.encode({**claims, 'sub': 'ü b'}, SECRET)}", "Bearer " + "x" * 5000, None,
    ))  # fmt: skip


def a_call(door: Door, seed: str) -> bytes:
    """The call that this seed stands for, at this door."""
    dice = random.Random(seed)
    fields = ["Host: x"]
    if (authorization := tokens_of(door.served, dice)) is not None:
        fields.append(f"Authorization: {authorization}")
    sale = f"{door.name}-{dice.choice((*SALES, 'open', 'open', 'dear', 'room', 'room'))}"
    target = dice.choice(("{}",) * 14 + TARGETS)
    extras = dice.choice(EXTRAS)
    call = dice.randrange(14)
    if call in {12, 13}:
        sale = dice.choice((sale, *(f"{door.name}-room",) * 3))
    if "-room" in sale or call == 2:
        token = a_ticket(door, dice, polls=call == 2)
        # Half of the time the caller's own.
        user = f"u{dice.randrange(VISITORS)}"
        if dice.random() < 0.5:
            fields[1:] = [f"Authorization: Bearer {door.served.tokens.issue(user)}"]
            token = door.visitors.tickets[user].decode()
        if token is not None:
            fields.append(f"Queue-Ticket: {token}")
    match call:
        case 0:
            path, method = f"/v1/sales/{sale}", dice.choice(("GET",) * 5 + ("HEAD", "OPTIONS"))
        case 1:
            known = door.reservations or [f"{door.name}-open.{'x' * 20}"]
            odd = (f"{door.name}-open.short", "x", f"{door.name}-open." + "y" * 20)
            name = dice.choice((known[dice.randrange(len(known))],) * 5 + odd)
            path, method = f"/v1/reservations/{name}", dice.choice(("GET",) * 6 + ("HEAD",))
        case 2:
            sale = dice.choice((sale, *(f"{door.name}-room",) * 3))
            path, method = f"/v1/sales/{sale}/queue", dice.choice(("GET",) * 8 + ("HEAD",))
        case 12:
            path, method = (
                f"/v1/sales/{sale}/queue/challenge",
                dice.choice(("GET",) * 8 + ("HEAD",)),
            )
        case 13:
            return _enter(dice, sale, target, fields, extras)
        case _:
            return _reserve(dice, sale, target, fields, extras)
    return request(f"{method} {target.format(path)} HTTP/1.1", *fields, *extras)


def _enter(
    dice: random.Random, sale: str, target: str, fields: list[str], extras: tuple[str, ...]
) -> bytes:
    content_type = dice.choice(("application/json",) * 9 + TYPES)
    if content_type is not None:
        fields.append(f"Content-Type: {content_type}")
    path = target.format(f"/v1/sales/{sale}/queue")
    return request(f"POST {path} HTTP/1.1", *fields, *extras, body=dice.choice(ENTRIES))


def _reserve(
    dice: random.Random, sale: str, target: str, fields: list[str], extras: tuple[str, ...]
) -> bytes:
    key = dice.choice((*(f"k{dice.randrange(6)}",) * 12, *KEYS))
    content_type = dice.choice(("application/json",) * 9 + TYPES)
    if key is not None:
        fields.append(f"Idempotency-Key: {key}")
    if content_type is not None:
        fields.append(f"Content-Type: {content_type}")
    path = target.format(f"/v1/sales/{sale}/reservations")
    return request(f"POST {path} HTTP/1.1", *fields, *extras, body=dice.choice(BODIES))


def is_at_the_gate(served: Served) -> bool:
    return any(isinstance(each, GateConnection) for each in served.server.connections.open)


OWN = re.compile(rb"(X-Request-Id: )[0-9a-f]{12}-[0-9a-f]+")
RESERVATION = re.compile(rb"\b[gn](-[a-z]+)(\.[A-Za-z0-9_-]{20})?")
VARYING = (
    re.compile(rb"\r\nDate: [^\r]*"),
    re.compile(rb'"(?:server_time|reserved_until|created_at|opens_at|closes_at)":"[^"]*"'),
    re.compile(rb'"(?:revision)":\d+'),
    re.compile(rb"\r\nContent-Length: \d+"),
    re.compile(rb"\r\nRetry-After: \d+"),
    # Of a poll: what differs by the ticket and from moment to moment.
    re.compile(rb'"ticket":"[^"]*"'),
    re.compile(rb"(?<=Queue-Ticket: )[^\r]*"),
    re.compile(rb'(?<="state":)"(?:waiting|admitted)"'),  # The turn comes between two answers.
    # Of a challenge: what is drawn for it.
    re.compile(rb'"(?:challenge|salt|signature)":"[^"]*"'),
    re.compile(rb'"(?:eta_range_seconds":\[[^]]*\]|(?:eta|poll_after)_seconds":[^,}]*)'),
    re.compile(rb'"(?:expires_at|chance|chance_says|may_return|ahead|position)":[^,}]*'),
)


def plain(said: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, headers in any order and body, without what differs by nature."""
    said = RESERVATION.sub(rb"*\1", OWN.sub(rb"\1own", said))
    for pattern in VARYING:
        said = pattern.sub(b"", said)
    head, _, body = said.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    return line, sorted(headers), re.sub(rb'"available":\d+', b"", body)


async def effects(door: Door, redis: Redis) -> dict[str, object]:
    """What lies in Redis of this door's sales: counters, and each buyer's wishes in order."""
    found: dict[str, object] = {}
    for sale in SALES[:9]:
        snapshot = await door.served.engine.inventory.snapshot(f"{door.name}-{sale}")
        found[sale] = snapshot.stock
        for number in range(12):
            held = await door.served.engine.inventory.reservations(
                f"{door.name}-{sale}", f"u{number}"
            )
            found[f"{sale} u{number}"] = [(each.items_text, each.state) for each in held]
    return found


async def test_both_doors_answer_do_and_count_alike(
    doors: tuple[Door, Door], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("DOORBUSTER_FUZZ_SEED", random.randrange(1 << 32)))
    print(f"DOORBUSTER_FUZZ_SEED={seed}")
    for door in doors:
        monkeypatch.setattr(door.served.front.counts, "flush", lambda: None)
        for counter in (door.served.front.counts.requests, door.served.front.counts.outcomes):
            counter.clear()
    seen: set[bytes] = set()
    at_the_gate = 0
    for number in range(CALLS):
        said = []
        for door in doors:
            call = a_call(door, f"{seed} {number}")
            said.append(await door.answer(call))
            if b'{"reservation_id"' in said[-1] and b" 201 " in said[-1][:14]:
                door.reservations.append(
                    json.loads(said[-1].partition(b"\r\n\r\n")[2])["reservation_id"]
                )
        assert plain(said[0]) == plain(said[1]), call
        if is_at_the_gate(doors[0].served):
            at_the_gate += 1
        else:
            await doors[0].leave()  # It was handed over; the next call shall meet the gate again.
        seen.add(said[0][9:12])
    assert {b"200", b"201", b"400", b"401", b"403", b"404", b"409", b"413", b"425"} <= seen, seen
    assert at_the_gate > CALLS // 3, "too few calls are the gate's own"
    assert await effects(doors[0], redis) == await effects(doors[1], redis)
    doors[0].served.server._doors.flush_counts()
    counts = [door.served.front.counts for door in doors]
    assert counts[0].requests == counts[1].requests
    assert counts[0].outcomes == counts[1].outcomes
