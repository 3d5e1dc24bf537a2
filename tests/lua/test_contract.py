"""Each script's header, its code, its wrapper and the Python enums say the same."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hiredis
import msgspec
import pytest
from redis.asyncio import Redis

from engine.admission.room.settings import RoomSettings
from engine.admission.room.store import ENTER_BATCH_MAX, TICKETS_MAX, EnterWord, Proof, RoomStore
from engine.clock import ManualClock
from engine.config import Settings
from engine.inventory import Inventory
from engine.inventory.inventory import LETTER_OF_STATE, RESOLVE_BATCH_MAX, Counters
from engine.keys import ATTENDANCE_SLOTS, shard_keys
from engine.lua import ROOM_SCRIPT_NAMES, SCRIPT_NAMES, LuaScript
from engine.model import RESERVATIONS_PER_BUYER_MAX, Outcome
from engine.sales.document import SKUS_MAX
from tests.lua.shelf import SALE, open_settings, wish

REDIS_WORDS = {"HMGET", "HGET", "HSET", "HINCRBY", "XADD", "XGROUP", "CREATE", "MKSTREAM", "DEL"}
REDIS_WORDS |= {"BITFIELD", "BITFIELD_RO", "GET", "SET", "GETBIT", "BITCOUNT", "BIT", "BITOP"}
REDIS_WORDS |= {"TIME", "EXISTS", "HGETALL", "HDEL", "XLEN", "UNLINK", "PEXPIRE"}
REDIS_WORDS |= {"GETRANGE", "SETRANGE", "AND", "XOR", "HINCRBYFLOAT", "ZADD", "ZRANGEBYSCORE"}
REDIS_WORDS |= {"WITHSCORES", "LIMIT", "ZREMRANGEBYSCORE", "ZREMRANGEBYRANK"}
REDIS_WORDS |= {"SPUBLISH", "ERR"}  # "ERR": how a reply that is an error begins
TUPLE_SIZES = {"pairs": 2, "triples": 3, "quadruples": 4, "quintuples": 5}


class Header:
    """What the comment at the top of a script promises."""

    def __init__(self, text: str) -> None:
        lines = text.splitlines()
        comment = [line[2:].strip() for line in lines[: next_code(lines)]]
        self.title = comment[0].partition(":")[0]
        self.keys = numbers(section(comment, "KEYS"))
        arguments = section(comment, "ARGV")
        self.arguments = numbers(arguments)
        group = re.search(r"(\d+)… (\w+):", arguments)
        self.group_size = TUPLE_SIZES[group[2]] if group else 0
        self.fixed = int(group[1]) - 1 if group else self.arguments[-1]
        self.words = set(re.findall(r"'([A-Z_]+)", section(comment, "Returns")))


def next_code(lines: list[str]) -> int:
    return next(number for number, line in enumerate(lines) if not line.startswith("--"))


def section(comment: list[str], name: str) -> str:
    start = next(number for number, line in enumerate(comment) if line.startswith(name))
    end = start + 1
    while end < len(comment) and comment[end] and not re.match(r"[A-Z]\w+  ", comment[end]):
        end += 1
    return " ".join(comment[start:end])


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"(?:^|\s)(\d+)…? ", text)]


def code_of(text: str) -> str:
    return "\n".join(line.partition("--")[0] for line in text.splitlines())


@pytest.mark.parametrize("name", SCRIPT_NAMES + ROOM_SCRIPT_NAMES)
def test_header_lists_the_keys_and_words_that_the_code_uses(name: str) -> None:
    text = LuaScript(name).text
    header, code = Header(text), code_of(text)

    assert header.title == name
    assert header.keys == sorted({int(n) for n in re.findall(r"KEYS\[(\d+)\]", code)})
    assert header.arguments == list(range(1, len(header.arguments) + 1))
    assert (
        set(re.findall(r"'([A-Z_]{3,})[ ']", code)) - (REDIS_WORDS - header.words) == header.words
    )


# What stands for a key in the code, and where it comes from.
KEY_NAMES = {"config", "stock", "buyers", "orders", "arrivals", "used", "room"}
KEY_NAMES |= {"tickets", "present", "scratch", "attendance", "proof"}
KEY_NAMES |= {"passed", "passed_over", "fronts"}
DRAWN_FROM = {
    "attendance": ("ATTENDANCE[",),
    "previous": ("ATTENDANCE[",),
    "proof": ("PROOFS[", "proofs[i][1]"),
}


@pytest.mark.parametrize("name", SCRIPT_NAMES + ROOM_SCRIPT_NAMES)
def test_code_computes_no_key(name: str) -> None:
    code = code_of(LuaScript(name).text)
    calls = r"redis\.p?call\('[A-Z_]+', (?:'CREATE', |'OR', |'AND', |'XOR', )?(\w+)"
    assert set(re.findall(calls, code)) <= KEY_NAMES
    for one, sources in DRAWN_FROM.items():
        for source in re.findall(rf"local {one}(?:, \w+)* = (.*)", code):
            assert source.startswith(sources)


class Recorder:
    """Stands where Redis stands and notes what a wrapper sends."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.sent: tuple[int, tuple[Any, ...]] = (0, ())

    async def evalsha(self, sha: str, key_count: int, *words: Any) -> Any:
        self.sent = (key_count, words)
        return self.reply

    async def call(self, command: bytes) -> Any:
        """Stands where the link stands."""
        reader = hiredis.Reader(encoding="utf-8", errors="replace")
        reader.feed(command)
        _, _, key_count, *words = reader.gets()
        self.sent = (int(key_count), tuple(words))
        return self.reply

    def close(self) -> None:
        """Nothing is open."""


CLOCK = ManualClock()
WRAPPERS: dict[str, tuple[Any, Callable[[Inventory], Awaitable[Any]]]] = {
    "reserve": (
        [b"0000000000"],
        lambda i: i.reserve_batch(SALE, [wish("ann", "a*1"), wish("bob", "a*1")], [7, 8]),
    ),
    "confirm": ([b"", b""], lambda i: i.confirm(SALE, [("ann", "1"), ("bob", "2")])),
    "release": ([b"", b""], lambda i: i.release(SALE, [("a", "1", "expired"), ("b", "2", "x")])),
    "rereserve": (b"", lambda i: i.rereserve(SALE, "ann", "1")),
    "restock": (b"", lambda i: i.restock(SALE, "a", 1)),
    "launch": (
        b"",
        lambda i: i.launch(
            SALE, open_settings(CLOCK), {"a": Counters(1, 0, 0), "b": Counters(1, 0, 0)}
        ),
    ),
    "configure": (b"", lambda i: i.configure(SALE, open_settings(CLOCK))),
    "fence": (b"", lambda i: i.fence(SALE)),
}


async def enter_two(store: RoomStore) -> None:
    """Two people, one of them with a proof: both in one call."""
    await asyncio.gather(
        store.enter("drop", "ann", holds_ticket=False, proof=Proof("p", 0)),
        store.enter("drop", "bob", holds_ticket=True),
    )


ROOM_WRAPPERS: dict[str, tuple[Any, Callable[[RoomStore], Awaitable[Any]]]] = {
    "enter": ([b"FULL", b"FULL"], enter_two),
    "serve": (None, lambda r: r.serve("drop", 1.0)),
    "attend": ([b"", 0], lambda r: r.attend("drop", b"", None)),
    "furnish": (b"", lambda r: r.furnish("drop", RoomSettings(), "")),
}
SLOTS_LEFT = ATTENDANCE_SLOTS - 1  # A header counts the ring of attendance, and the proofs, as one.


@pytest.mark.parametrize("name", ROOM_SCRIPT_NAMES)
async def test_wrapper_of_the_room_sends_what_the_header_lists(name: str) -> None:
    text = LuaScript(name).text
    header = Header(text)
    reply, call = ROOM_WRAPPERS[name]
    recorder = Recorder(reply)

    await call(RoomStore(cast("Redis", recorder), CLOCK))

    key_count, words = recorder.sent
    assert key_count == len(header.keys) + ("ATTENDANCE" in text) * SLOTS_LEFT
    assert len(words) - key_count == header.fixed + 2 * header.group_size


def test_words_of_entering_are_those_in_python() -> None:
    words = {word.value for word in EnterWord} | {"ENTERED", "KEPT", "NO_ROOM"}
    assert Header(LuaScript("enter").text).words == words


@pytest.mark.parametrize("name", SCRIPT_NAMES)
async def test_wrapper_sends_what_the_header_lists(name: str) -> None:
    header = Header(LuaScript(name).text)
    reply, call = WRAPPERS[name]
    recorder = Recorder(reply)

    await call(Inventory(cast("Redis", recorder), CLOCK, batch_max=1, queue_max=1, link=recorder))

    key_count, words = recorder.sent
    assert key_count == len(header.keys)
    assert len(words) - key_count == header.fixed + 2 * header.group_size


async def test_keys_of_the_room_are_sent_with_tickets_only() -> None:
    recorder = Recorder([b"0000000000"])
    inventory = Inventory(cast("Redis", recorder), CLOCK, batch_max=1, queue_max=1, link=recorder)
    await inventory.reserve_batch(SALE, [wish("ann", "a*1")])
    key_count, words = recorder.sent
    assert key_count == 5
    assert words[:5] == shard_keys(SALE.sale_id).without_room


def test_outcome_enum_has_the_words_of_reserve() -> None:
    assert Header(LuaScript("reserve").text).words == {outcome.value for outcome in Outcome}


def test_bounds_in_lua_are_those_in_python() -> None:
    def bound(script: str, name: str) -> int:
        found = re.search(rf"local {name} = (\d+)", LuaScript(script).text)
        assert found is not None
        return int(found[1])

    assert bound("reserve", "RECORDS_MAX") == RESERVATIONS_PER_BUYER_MAX
    assert bound("confirm", "BATCH_MAX") == bound("release", "BATCH_MAX") == RESOLVE_BATCH_MAX
    assert bound("launch", "SKUS_MAX") == SKUS_MAX
    assert bound("enter", "ENTER_MAX") == ENTER_BATCH_MAX
    assert bound("enter", "TICKETS_MAX") == TICKETS_MAX
    assert bound("attend", "BITMAP_BYTES_MAX") == TICKETS_MAX // 8 + 1
    for script in ("enter", "serve", "attend"):
        assert bound(script, "SLOTS") == ATTENDANCE_SLOTS
    # Who lost the ticket is looked up in the ring: it reaches back as far at its shortest.
    assert bound("enter", "RETURN_MS") <= (ATTENDANCE_SLOTS - 1) * 20_000
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"batch_max": bound("reserve", "BATCH_MAX") + 1}, Settings)


def test_state_letters_in_lua_are_those_in_python() -> None:
    states = dict(re.findall(r"\b(\w) = '([a-z]+)'", LuaScript("reserve").text))
    assert states == {letter: state.value for state, letter in LETTER_OF_STATE.items()}
