"""What a batch packs is what reserve.lua takes apart, compiled or not."""

from typing import Any

import hiredis
import msgspec
import pytest
from redis.asyncio import Redis

import ext
from engine.clock import ManualClock
from engine.inventory import Inventory
from ext.plain.batch import ReserveBatch as PlainBatch
from tests.lua.shelf import ask, put_up, streamed, wish

LONG = 70_000  # Bytes: more than the middle one of MessagePack's three lengths holds.
BATCHES: dict[str, list[tuple[str, str, str]]] = {
    "nothing": [],
    "one": [("ann", "a" * 20, "black*1")],
    "shared wishes": [(f"user-{n}", f"{n:020d}", f"sku-{n % 3}*1") for n in range(300)],
    "no wish shared": [(f"user-{n}", f"{n:020d}", f"sku-{n}*1") for n in range(512)],
    "texts of every length": [
        ("u" * n, "i" * n, "s" * n) for n in (0, 1, 31, 32, 255, 256, 65_535, LONG)
    ],
    "not ASCII": [("买家", "a" * 20, "手机*1"), ("🛒", "b" * 20, "é*1")],
}


@pytest.mark.parametrize("kind", [ext.ReserveBatch, PlainBatch], ids=["compiled", "plain"])
@pytest.mark.parametrize("name", BATCHES)
def test_columns_and_lines_hold_every_request_in_order(kind: Any, name: str) -> None:
    requests, batch = BATCHES[name], kind()
    for request in requests:
        batch.add(object(), *request)

    assert not batch.has_tickets
    first, columns, lines = unpacked(batch.command(b"$4\r\nhead\r\n", 1))

    users, ids, wants, wishes = arrays(columns, 4)
    assert first == b"head"
    assert [*zip(users, ids, (wishes[want - 1] for want in wants), strict=True)] == requests
    assert len(set(wishes)) == len(wishes)
    assert lines.decode() == "\n".join(f"{name} {user} {items}" for user, name, items in requests)


TICKETS = [
    [-1],
    [0, 0, 7],
    [127, 128, 0, -1, 65_536],
    [1 << 24, *[0] * 511],
    [*[0] * 511, 1],
    [*range(1, 513)],
]


@pytest.mark.parametrize("kind", [ext.ReserveBatch, PlainBatch], ids=["compiled", "plain"])
@pytest.mark.parametrize("tickets", TICKETS, ids=len)
def test_tickets_are_a_fifth_column_with_one_for_each_request(
    kind: Any, tickets: list[int]
) -> None:
    batch = kind()
    for number, ticket in enumerate(tickets):
        batch.add(object(), f"user-{number}", f"{number:020d}", "black*1", ticket)

    _, columns, _ = unpacked(batch.command(b"$4\r\nhead\r\n", 1))

    users, _, wants, wishes, found = arrays(columns, 5)
    assert found == tickets
    assert batch.has_tickets
    assert len(users) == len(wants) == len(tickets)
    assert wishes == ["black*1"]


@pytest.mark.parametrize("kind", [ext.ReserveBatch, PlainBatch], ids=["compiled", "plain"])
@pytest.mark.parametrize("ticket", [-2, (1 << 24) + 1])
def test_what_is_no_number_of_a_ticket_is_not_packed(kind: Any, ticket: int) -> None:
    batch = kind()
    with pytest.raises(ValueError, match="no number"):
        batch.add(object(), "ann", "a" * 20, "black*1", ticket)
    assert len(batch) == 0


@pytest.mark.parametrize("kind", [ext.ReserveBatch, PlainBatch], ids=["compiled", "plain"])
@pytest.mark.parametrize("place", range(3))
def test_a_request_that_cannot_be_written_is_left_out_whole(kind: Any, place: int) -> None:
    batch, request = kind(), ["ann", "a" * 20, "black*1"]
    batch.add(object(), *request)
    before = batch.command(b"", 0)

    with pytest.raises(UnicodeEncodeError):
        batch.add(object(), *request[:place], "\udc80", *request[place + 1 :])

    assert len(batch) == 1
    assert batch.command(b"", 0) == before


async def test_entry_holds_the_reserved_requests_whether_or_not_others_were_refused(
    inventory: Inventory, redis: Redis, clock: ManualClock
) -> None:
    await put_up(inventory, clock, {"black": 9})
    ann, bob, cid = (wish(user, "black*1") for user in ("ann", "bob", "cid"))

    assert await ask(inventory, ann, bob) == ["RESERVED", "RESERVED"]
    assert await ask(inventory, ann, cid, wish("dan", "white*1")) == [
        "DUPLICATE",
        "RESERVED",
        "UNKNOWN_SKU",
    ]

    lines = [f"{who.reservation_id} {who.user_id} black*1" for who in (ann, bob, cid)]
    batches = [fields[b"batch"].decode() for fields in await streamed(redis)]
    assert batches == ["\n".join(lines[:2]), lines[2]]


def unpacked(command: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(command)
    words: list[bytes] = reader.gets()
    assert reader.gets() is False
    return words


def arrays(columns: bytes, count: int) -> list[list[Any]]:
    """Arrays in a row; as one array of arrays a decoder takes them."""
    return msgspec.msgpack.decode(bytes((0x90 | count,)) + columns, type=list[list[Any]])
