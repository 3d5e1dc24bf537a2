"""An open-loop generator: sends each request when it is due, however slow the answers are.

Latency counts from the time a request was due, so a server that stalls is charged for everything
that was due meanwhile (no coordinated omission). Speaks HTTP only; a process of its own, started
by `load`: reads one Plan as a line of JSON, says `ready`, starts at the monotonic time it is then
told, and prints one Result as JSON.
"""

import asyncio
import contextlib
import gc
import os
import re
import resource
import sys
import time
from array import array
from collections import defaultdict, deque
from typing import Final, cast

import msgspec
import uvloop
from hdrh.histogram import HdrHistogram

from benchmarks.capacity.pacing import Ticker, due_times

OPENING_MAX: Final = 128  # Connections opened at once: below any backlog.
REQUESTS_MAX: Final = 400_000  # Kept prebuilt, about 500 bytes each; then they come round again.
KEYS_PER_BUYER_MAX: Final = 12  # The engine remembers 16 reservations of a buyer in one sale.
ANSWER_SECONDS_MAX: Final = 3.0  # After the last request was due; then it counts as unanswered.
LATENCY_US_MAX: Final = 60_000_000
DIGITS: Final = 3  # significant ones, kept by the histograms

ACCEPTED: Final = "201"
UNSENT: Final = "unsent"  # No connection was free, for as long as the plan's patience.
LOST: Final = "lost"  # The connection broke while the request was on its way.
UNANSWERED: Final = "unanswered"

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
HEAD_END: Final = b"\r\n\r\n"


class Plan(msgspec.Struct, frozen=True):
    """What to send where, and when."""

    host: str
    port: int
    path: str
    body: str
    tokens_file: str
    key: str  # Idempotency keys begin with it.
    rate: float
    seconds: float  # measured ones
    warm_seconds: float  # before those: sent, not counted
    arrivals: str  # 'poisson' | 'constant'
    connections: int
    patience_seconds: float  # How long a request that is due waits for a free connection.
    good_seconds: float  # An answer within so many is a good one.
    seed: int
    core: int | None


class Result(msgspec.Struct, frozen=True):
    """What came of it. Counts are of requests due in the measured seconds, unless said otherwise."""

    due: int
    sent: int
    late: int  # Waited for a connection, however short.
    outcomes: dict[str, int]
    accepted_in_time: int  # 201s answered in the measured seconds, whenever they were due
    accepted_total: int  # 201s, warm-up included
    good: int  # 201s within the plan's good_seconds of being due
    latency: str  # encoded HdrHistogram, µs: all that was sent, or was given up after waiting
    accepted_latency: str
    lag: str  # from due to sent, where a connection was free: the generator's own lateness
    cpu_seconds: float
    seconds: float


class Log:
    """When requests were due and how long they took, by outcome. Counted when all is over."""

    def __init__(self) -> None:
        self.due: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self.took: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self.lags = array("d")

    def add(self, outcome: str, due_at: float, now: float) -> None:
        self.due[outcome].append(due_at)
        self.took[outcome].append(now - due_at)


class Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request on its way."""

    __slots__ = ("_part", "_sender", "_transport", "due_at")

    def __init__(self, sender: "Sender") -> None:
        self._sender = sender
        self._part = b""
        self._transport: asyncio.Transport | None = None
        self.due_at: float | None = None  # of the request on its way; None: free

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, due_at: float, request: bytes) -> None:
        assert self._transport is not None
        self.due_at = due_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._part:
            data = self._part + data
        head = data.find(HEAD_END)
        length = _LENGTH.search(data, 0, head) if head >= 0 else None
        if length is None or len(data) < head + len(HEAD_END) + int(length[1]):
            self._part = data
            return
        self._part = b""
        due_at, self.due_at = self.due_at, None
        if due_at is not None:
            self._sender.answered(self, data[9:12].decode(), due_at)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        due_at, self.due_at = self.due_at, None
        self._sender.lost(self, due_at)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Sender:
    """Sends what is due on connections that are free."""

    def __init__(self, plan: Plan, requests: list[bytes], due: list[float], began: float) -> None:
        self._plan = plan
        self._requests = requests
        self._due = [began + at for at in due]
        self._next = 0
        self._sent = 0
        self._waiting: deque[float] = deque()
        self._on_its_way: set[Connection] = set()
        self._closing = False
        self._replacing: set[asyncio.Task[None]] = set()
        self.free: deque[Connection] = deque()
        self.late = 0
        self.log = Log()
        self.finished = asyncio.Event()  # Everything was due, and has an answer or was given up.

    def tick(self) -> None:
        """Sends what has become due."""
        due, number = self._due, self._next
        count = len(due)
        now = time.monotonic()
        while number < count and due[number] <= now:
            due_at = due[number]
            number += 1
            if self.free and not self._waiting:
                self.log.lags.append(now - due_at)
                self._send(self.free.popleft(), due_at)
            else:
                self._wait(due_at, now)
            now = time.monotonic()
        self._next = number
        self._give_up(now)
        if number == count and not self._waiting and not self._on_its_way:
            self.finished.set()

    def answered(self, connection: Connection, status: str, due_at: float) -> None:
        now = time.monotonic()
        self._on_its_way.discard(connection)
        self.log.add(status, due_at, now)
        self._give_up(now)
        self._use(connection)

    def lost(self, connection: Connection, due_at: float | None) -> None:
        if due_at is not None:
            self._on_its_way.discard(connection)
            self.log.add(LOST, due_at, time.monotonic())
        elif connection in self.free:
            self.free.remove(connection)
        if not self._closing:
            task = asyncio.get_running_loop().create_task(self._replace())
            self._replacing.add(task)
            task.add_done_callback(self._replacing.discard)

    async def finish(self) -> None:
        """Counts what has no answer, and closes all connections."""
        now = time.monotonic()
        self._closing = True
        for due_at in self._waiting:
            self.log.add(UNSENT, due_at, now)
        await asyncio.gather(*self._replacing)
        for connection in list(self._on_its_way):
            assert connection.due_at is not None
            self.log.add(UNANSWERED, connection.due_at, now)
            connection.due_at = None
            connection.close()
        for connection in list(self.free):
            connection.close()
        await asyncio.sleep(0)  # Lets the loop tell them that they are closed.

    async def open(self, count: int) -> None:
        """Opens that many connections. Raises OSError."""
        for first in range(0, count, OPENING_MAX):
            size = min(OPENING_MAX, count - first)
            self.free.extend(await asyncio.gather(*(self._connect() for _ in range(size))))

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self), self._plan.host, self._plan.port
        )
        return connection

    async def _replace(self) -> None:
        try:
            self._use(await self._connect())
        except OSError:
            return  # One connection fewer; what finds none free says so.

    def _use(self, connection: Connection) -> None:
        """Sends what waits longest; without that the connection is free."""
        if self._waiting and not self._closing:
            self._send(connection, self._waiting.popleft())
        else:
            self.free.append(connection)

    def _send(self, connection: Connection, due_at: float) -> None:
        self._on_its_way.add(connection)
        connection.send(due_at, self._requests[self._sent % len(self._requests)])
        self._sent += 1

    def _wait(self, due_at: float, now: float) -> None:
        if self._plan.patience_seconds > 0:
            self.late += 1
            self._waiting.append(due_at)
        else:
            self.log.add(UNSENT, due_at, now)

    def _give_up(self, now: float) -> None:
        patience = self._plan.patience_seconds
        while self._waiting and now - self._waiting[0] > patience:
            self.log.add(UNSENT, self._waiting.popleft(), now)


def build_requests(plan: Plan, tokens: list[str], count: int) -> list[bytes]:
    """`count` requests, each buyer's keys all different, buyers in turn."""
    head = (
        f"POST {plan.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(plan.body)}\r\n"
    )
    count = min(count, REQUESTS_MAX, len(tokens) * KEYS_PER_BUYER_MAX)
    return [
        f"{head}Authorization: Bearer {tokens[number % len(tokens)]}\r\n"
        f"Idempotency-Key: {plan.key}-{number // len(tokens)}\r\n\r\n{plan.body}".encode()
        for number in range(count)
    ]


async def generate(plan: Plan, requests: list[bytes], due: list[float], began: float) -> Result:
    """Opens the connections, waits for `began`, sends it all."""
    loop = asyncio.get_running_loop()
    sender, ticker = Sender(plan, requests, due, began), Ticker()
    await sender.open(plan.connections)
    await asyncio.sleep(max(0.0, began - time.monotonic()))
    cpu_s = time.process_time()

    def tick() -> None:
        ticker.acknowledge()
        sender.tick()

    loop.add_reader(ticker.fd, tick)
    end = began + plan.warm_seconds + plan.seconds
    await asyncio.sleep(max(0.0, end - time.monotonic()))
    cpu_s = time.process_time() - cpu_s
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            await sender.finished.wait()
    loop.remove_reader(ticker.fd)
    ticker.close()
    await sender.finish()
    return summarize(plan, sender, began, cpu_s)


def summarize(plan: Plan, sender: Sender, began: float, cpu_s: float) -> Result:
    start = began + plan.warm_seconds
    end = start + plan.seconds
    latency, accepted_latency, lag = histogram(), histogram(), histogram()
    outcomes: dict[str, int] = {}
    log = sender.log
    for outcome, dues in log.due.items():
        took = [
            took for due_at, took in zip(dues, log.took[outcome], strict=True) if due_at >= start
        ]
        outcomes[outcome] = len(took)
        # What was dropped at once has waited for nothing; a lower bound of zero says nothing.
        if outcome != UNSENT or plan.patience_seconds > 0:
            record(latency, took)
        if outcome == ACCEPTED:
            record(accepted_latency, took)
    record(lag, log.lags)
    accepted = list(zip(log.due[ACCEPTED], log.took[ACCEPTED], strict=True))
    return Result(
        due=sum(outcomes.values()),
        sent=sum(count for outcome, count in outcomes.items() if outcome != UNSENT),
        late=sender.late,
        outcomes={outcome: count for outcome, count in outcomes.items() if count},
        accepted_in_time=sum(start <= due_at + took < end for due_at, took in accepted),
        accepted_total=len(accepted),
        good=sum(took <= plan.good_seconds for due_at, took in accepted if due_at >= start),
        latency=latency.encode().decode(),
        accepted_latency=accepted_latency.encode().decode(),
        lag=lag.encode().decode(),
        cpu_seconds=cpu_s,
        seconds=plan.warm_seconds + plan.seconds,
    )


def histogram() -> HdrHistogram:
    return HdrHistogram(1, LATENCY_US_MAX, DIGITS)


def record(into: HdrHistogram, seconds: "array[float] | list[float]") -> None:
    for each in seconds:
        into.record_value(min(LATENCY_US_MAX, max(1, round(each * 1e6))))


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.readline(), type=Plan)
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    raise_open_files_limit()
    with open(plan.tokens_file) as file:
        tokens = file.read().split()
    due = due_times(plan.arrivals, plan.rate, plan.warm_seconds + plan.seconds, plan.seed)
    requests = build_requests(plan, tokens, len(due))
    gc.collect()
    gc.freeze()
    gc.disable()  # What it allocates has no cycles, and a collection would look like a stall.
    print("ready", flush=True)
    began = float(sys.stdin.readline())
    print(msgspec.json.encode(uvloop.run(generate(plan, requests, due, began))).decode())


def raise_open_files_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
