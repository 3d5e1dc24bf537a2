"""One trial: one server, one load, what it cost, and the proof that every answer was the right one.

Each trial has a Redis and a sale of its own, so that nobody pays for what another left behind.
"""

import asyncio
import http.client
import json
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import jwt
from redis import Redis

from api.tokens import ALGORITHM, TOKEN_SECONDS, Tokens
from benchmarks import rig
from benchmarks.contenders import RESERVE_ONE, Contender, Place
from benchmarks.cores import Cores, cpu_seconds, machine_busy_seconds, pin
from benchmarks.wrk import CONNECTIONS, Requests, WrkResult, run_wrk, write_lines
from engine.clock import SystemClock
from engine.config import Durability
from engine.keys import shard_keys

BUYERS: Final = 60_000  # Tokens made beforehand.
FEW_BUYERS: Final = 5_000  # So few that warming up meets every one of them.
# A buyer comes back with another key: 240,000 reservations. As long as the usual UUID.
KEYS: Final = tuple(str(uuid5(NAMESPACE_URL, name)) for name in ("a", "b", "c", "d"))
WARM_KEY, PROBE_KEY, FIRST_KEY = (
    str(uuid5(NAMESPACE_URL, name)) for name in ("warm", "probe", "first")
)
WARM_SECONDS: Final = 1
PER_USER_MAX: Final = 16
SKU: Final = "phone-black"
BODY: Final = json.dumps({"items": [{"sku": SKU, "quantity": 1}]}, separators=(",", ":"))


class TrialFailed(AssertionError):
    """A server gave a wrong answer. A fast wrong answer is worth nothing."""


class Answer(NamedTuple):
    status: int
    body: bytes


class Count(NamedTuple):
    """What had happened by some moment: CPU seconds, reservations in Redis, calls of its script."""

    front_s: float
    redis_s: float
    reserved: int
    calls: int
    generator_s: float = 0.0
    machine_s: float = 0.0  # everybody's, ours included
    at_s: float = 0.0


@dataclass(frozen=True)
class Load:
    """What is asked of a server, and how the answers are checked."""

    status: int  # of every answer
    check: Callable[[WrkResult, Count, Count], str | None]  # what is wrong, if anything
    buyers: str = "tokens"
    keys: tuple[str, ...] = KEYS
    units: int = 1_000_000_000
    head: str = "POST /v1/sales/{sale}/reservations HTTP/1.1"
    has_body: bool = True


@dataclass(frozen=True)
class Trial:
    """A server under a load."""

    name: str
    title: str
    contender: Contender
    load: Load
    durability: Durability = Durability.STRICT
    seconds: int = 3


@dataclass(frozen=True)
class Measurement:
    """What one trial came to."""

    trial: str
    requests: int
    requests_per_second: float
    front_us: float  # CPU per request
    redis_us: float
    front_busy: float  # Share of its core; far below 1 the generator or Redis was the limit.
    redis_calls: int
    p50_ms: float
    p99_ms: float
    timeouts: int
    others_share: float  # of all cores, taken by programs that are none of ours


def _all_reserved(said: WrkResult, before: Count, after: Count) -> str | None:
    """Requests in flight when wrk stops counting are reserved too: at most one per connection."""
    made = after.reserved - before.reserved
    if said.refused:
        return f"{said.refused} of {said.requests} were refused"
    if not 0 <= made - said.requests <= CONNECTIONS:
        return f"{said.requests} answers, but {made} reservations in Redis"
    return None


def _none_refused(said: WrkResult, before: Count, after: Count) -> str | None:
    if said.refused or after.reserved != before.reserved:
        return f"{said.refused} refused, {after.reserved - before.reserved} reserved"
    return None


def _all_refused(said: WrkResult, before: Count, after: Count) -> str | None:
    if said.refused != said.requests or after.reserved != before.reserved:
        return f"{said.refused} of {said.requests} refused, {after.reserved - before.reserved} reserved"
    return None


RESERVE: Final = Load(201, _all_reserved)
CONSTANT: Final = Load(201, lambda said, _, __: f"{said.refused} refused" if said.refused else None)
REPLAY: Final = Load(200, _none_refused, buyers="few_tokens", keys=(WARM_KEY,))
SOLD_OUT: Final = Load(409, _all_refused, units=1)
FORGED: Final = Load(401, _all_refused, buyers="forged")
FOREIGN: Final = Load(201, _all_reserved, buyers="foreign")
STATUS: Final = Load(
    200,
    _none_refused,
    buyers="nobody",
    keys=("",),
    head="GET /v1/sales/{sale} HTTP/1.1",
    has_body=False,
)


class Bench:
    """What the trials of one run share: a Postgres, cores, and files of buyers."""

    def __init__(self, folder: Path, postgres_url: str, cores: Cores) -> None:
        self.folder = folder
        self.postgres_url = postgres_url
        self.cores = cores
        self._rounds = 0

    def prepare(self) -> None:
        tokens = Tokens(rig.SECRET, SystemClock())
        names = [sha256(str(number).encode()).hexdigest()[:16] for number in range(BUYERS)]
        issued = [tokens.issue(name) for name in names]
        lines = {
            "users": names,
            "tokens": issued,
            "few_tokens": issued[:FEW_BUYERS],
            "forged": [forged(token) for token in issued[:FEW_BUYERS]],
            "foreign": [foreign_token(name) for name in names[: BUYERS // 2]],
            "nobody": [""],
        }
        for name, content in lines.items():
            write_lines(self.folder / name, content)

    def run(self, trial: Trial) -> Measurement:
        """Raises TrialFailed, WrkFailed or ServerFailed."""
        self._rounds += 1
        sale = f"sale-{self._rounds:02d}"
        with rig.valkey(trial.durability) as valkey, rig.temporary_folder() as folder:
            redis_pid = valkey.pid
            assert redis_pid is not None
            pin(redis_pid, self.cores.redis)
            settings = rig.make_settings(valkey.url, self.postgres_url, trial.durability)
            place = Place(folder, rig.free_port(), self.cores.front, settings)
            with _redis(place) as redis:
                self._put_up(trial, sale, place, redis)
                with trial.contender.serve(place) as pid:
                    return self._measure(
                        trial, sale, place, lambda: _count(redis, sale, pid, redis_pid)
                    )

    def _put_up(self, trial: Trial, sale: str, place: Place, redis: Redis) -> None:
        document = rig.make_document(
            sale,
            skus=[SKU],
            units=trial.load.units,
            per_user_max=PER_USER_MAX,
            auto_capture=False,
        )
        asyncio.run(rig.put_up_sale(place.settings, sale, document))
        redis.script_load(RESERVE_ONE.read_text())
        # A rewrite of the AOF would fall into the run of the fastest only.
        redis.config_set("auto-aof-rewrite-percentage", 0)

    def _measure(
        self, trial: Trial, sale: str, place: Place, count: Callable[[], Count]
    ) -> Measurement:
        load, port = trial.load, place.port
        warming = self.requests(trial, sale, port, (WARM_KEY,) if load.has_body else load.keys)
        exchange(port, first_request(warming, FIRST_KEY if load.has_body else ""))
        run_wrk(warming, port, core=self.cores.generator, seconds=WARM_SECONDS)
        requests = self.requests(trial, sale, port, load.keys)
        self._probe(load, requests, port)
        before = count()
        said = run_wrk(requests, port, core=self.cores.generator, seconds=trial.seconds)
        after = count()
        if said.broken:
            raise TrialFailed(f"{trial.title}: {said.broken} connections failed")
        if wrong := load.check(said, before, after):
            raise TrialFailed(f"{trial.title}: {wrong}")
        return _measurement(trial, said, before, after)

    def requests(self, trial: Trial, sale: str, port: int, keys: tuple[str, ...]) -> Requests:
        load, checks = trial.load, trial.contender.checks_tokens
        head, host = load.head.format(sale=sale), f"Host: 127.0.0.1:{port}"
        if not load.has_body:
            return Requests(self.folder / load.buyers, keys, f"{head}\r\n{host}\r\n", tail="\r\n")
        # The buyer's part comes early: LuaJIT hashes a string by a few bytes of its first half, its
        # middle and its ends, and takes hours over 240,000 that are alike there.
        return Requests(
            self.folder / (load.buyers if checks else "users"),
            keys,
            f"{head}\r\n{'Authorization: Bearer ' if checks else 'X-User: '}",
            f"\r\n{host}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
            "Idempotency-Key: ",
            f"\r\n\r\n{BODY}",
        )

    def _probe(self, load: Load, requests: Requests, port: int) -> None:
        """One answer looked at closely: wrk tells 2xx from others and no more."""
        key = PROBE_KEY if load.has_body and load.keys == KEYS else load.keys[0]
        answer = exchange(port, first_request(requests, key))
        if answer.status != load.status:
            raise TrialFailed(f"{load.status} was due, but it answered {answer}")
        json.loads(answer.body)


def first_request(requests: Requests, key: str) -> bytes:
    """The request of the first buyer, byte for byte as wrk sends it."""
    with requests.buyers.open() as lines:
        buyer = lines.readline().rstrip("\n")
    return f"{requests.head}{buyer}{requests.middle}{key}{requests.tail}".encode()


def exchange(port: int, request: bytes) -> Answer:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return Answer(response.status, response.read())


def forged(token: str) -> str:
    """The token with one character of its signature changed, so that it is forged for certain."""
    at = token.rindex(".") + 1
    return f"{token[:at]}{'B' if token[at] == 'A' else 'A'}{token[at + 1 :]}"


def foreign_token(user: str) -> str:
    """A token of a storefront that names its key: our own encoder writes no `kid`."""
    now_s = SystemClock().now_ms() // 1000
    claims = {"sub": user, "role": "buyer", "exp": now_s + TOKEN_SECONDS, "iat": now_s}
    return jwt.encode(claims, rig.SECRET, algorithm=ALGORITHM, headers={"kid": "shop"})


@contextmanager
def _redis(place: Place) -> Iterator[Redis]:
    client = Redis(unix_socket_path=place.redis_socket)
    try:
        yield client
    finally:
        client.close()


def _count(redis: Redis, sale: str, front_pid: int, redis_pid: int) -> Count:
    reserved: Any = redis.hget(shard_keys(sale).stock, f"{SKU}:reserved")
    commands: Mapping[str, Any] = redis.info("commandstats")
    calls = commands.get("cmdstat_evalsha", {"calls": 0})["calls"]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # wrk, once it has ended
    return Count(
        front_s=cpu_seconds(front_pid),
        redis_s=cpu_seconds(redis_pid),
        reserved=int(reserved or 0),
        calls=int(calls),
        generator_s=ended.ru_utime + ended.ru_stime,
        machine_s=machine_busy_seconds(),
        at_s=time.monotonic(),
    )


def _measurement(trial: Trial, said: WrkResult, before: Count, after: Count) -> Measurement:
    front_s, redis_s = after.front_s - before.front_s, after.redis_s - before.redis_s
    # Those in flight at the end were worked on too.
    done = max(said.requests, after.reserved - before.reserved)
    return Measurement(
        trial=trial.name,
        requests=said.requests,
        requests_per_second=said.requests_per_second,
        front_us=front_s / done * 1e6,
        redis_us=redis_s / done * 1e6,
        front_busy=front_s / said.seconds,
        redis_calls=after.calls - before.calls,
        p50_ms=said.p50_ms,
        p99_ms=said.p99_ms,
        timeouts=said.timeouts,
        others_share=others_share(before, after, os.cpu_count() or 1),
    )


def others_share(before: Count, after: Count, cores: int) -> float:
    ours = after.front_s + after.redis_s + after.generator_s
    ours -= before.front_s + before.redis_s + before.generator_s
    spent = after.machine_s - before.machine_s - ours
    return max(0.0, spent / (cores * (after.at_s - before.at_s)))
