"""Each script's header, its code, its wrapper and the Python enums say the same."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hiredis
import msgspec
import pytest
from redis.asyncio import Redis

from engine.clock import ManualClock
from engine.config import Settings
from engine.inventory import Inventory
from engine.inventory.inventory import LETTER_OF_STATE, RESOLVE_BATCH_MAX, Counters
from engine.lua import SCRIPT_NAMES, LuaScript
from engine.model import RESERVATIONS_PER_BUYER_MAX, Outcome
from engine.sales.document import SKUS_MAX
from tests.lua.shelf import SALE, open_settings, wish

REDIS_WORDS = {"HMGET", "HGET", "HSET", "HINCRBY", "XADD", "XGROUP", "CREATE", "MKSTREAM", "DEL"}
REDIS_WORDS |= {"BITFIELD", "BITFIELD_RO", "GET", "SET"}
REDIS_WORDS |= {"SPUBLISH", "ERR"}  # "ERR": how a reply that is an error begins
TUPLE_SIZES = {"pairs": 2, "triples": 3, "quadruples": 4}


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


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_header_lists_the_keys_and_words_that_the_code_uses(name: str) -> None:
    text = LuaScript(name).text
    header, code = Header(text), code_of(text)

    assert header.title == name
    assert header.keys == sorted({int(n) for n in re.findall(r"KEYS\[(\d+)\]", code)})
    assert header.arguments == list(range(1, len(header.arguments) + 1))
    assert set(re.findall(r"'([A-Z_]{3,})[ ']", code)) - REDIS_WORDS == header.words


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_code_computes_no_key(name: str) -> None:
    code = code_of(LuaScript(name).text)
    keys = {"config", "stock", "buyers", "orders", "arrivals", "used", "room"}
    assert set(re.findall(r"redis\.p?call\('[A-Z_]+', (?:'CREATE', )?(\w+)", code)) <= keys


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
        lambda i: i.reserve_batch(SALE, [wish("ann", "a*1"), wish("bob", "a*1")]),
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


@pytest.mark.parametrize("name", SCRIPT_NAMES)
async def test_wrapper_sends_what_the_header_lists(name: str) -> None:
    header = Header(LuaScript(name).text)
    reply, call = WRAPPERS[name]
    recorder = Recorder(reply)

    await call(Inventory(cast("Redis", recorder), CLOCK, batch_max=1, queue_max=1, link=recorder))

    key_count, words = recorder.sent
    assert key_count == len(header.keys)
    assert len(words) - key_count == header.fixed + 2 * header.group_size


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
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"batch_max": bound("reserve", "BATCH_MAX") + 1}, Settings)


def test_state_letters_in_lua_are_those_in_python() -> None:
    states = dict(re.findall(r"\b(\w) = '([a-z]+)'", LuaScript("reserve").text))
    assert states == {letter: state.value for state, letter in LETTER_OF_STATE.items()}
