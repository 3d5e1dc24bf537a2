"""A bounded open-loop flash crowd over HTTP/1.1. Knows the HTTP contract and nothing of the engine.

A buyer clicks when the plan says, whatever became of earlier clicks; latency counts from then, so a
slow engine cannot hide behind a generator that waits for it. Each buyer repeats what was shed or
lost, with the same key, as a good client does.
"""

import asyncio
import gc
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from loadtest.connection import Connection
from loadtest.plan import Click
from loadtest.tally import ACCEPTED, LOST, SHED, UNFINISHED, CrowdReport, Tally

TICK_SECONDS: Final = 0.001  # The loop's own timer resolution.
SWEEP_SECONDS: Final = 0.25  # How often time-outs are looked for.
BACKOFF_SECONDS: Final = (0.05, 1.0)  # After a loss: doubled each time up to the second.
CONNECT_SECONDS_MAX: Final = 5.0
RETRY_AFTER_SECONDS_MAX: Final = 30.0  # A longer wish than this outlives the crowd.

# Asked once the connections are open: when to begin, by the machine's monotonic clock.
Begin = Callable[[], Awaitable[float]]


class CrowdSettings(msgspec.Struct, frozen=True):
    """How the crowd speaks. `url` is the engine's, `sale_id` the sale to buy from."""

    url: str
    sale_id: str
    connections_max: int = 256
    attempts_max: int = 12  # requests per click
    request_seconds_max: float = 10.0
    seconds_max: float = 120.0  # then whoever waits is counted as unfinished
    seed: int = 0  # of the jitter


class CrowdFailed(Exception):
    """The crowd could not start. One sentence that says why."""


class _Answer(msgspec.Struct):
    """What a buyer reads of an answer: the reservation's id, or the problem's code."""

    reservation_id: str = ""
    code: str = ""


_decode: Final = msgspec.json.Decoder(_Answer).decode


class Crowd:
    """Runs one plan once."""

    def __init__(
        self, settings: CrowdSettings, clicks: Sequence[Click], tokens: Sequence[str]
    ) -> None:
        url = urlsplit(settings.url)
        if url.scheme != "http" or not url.hostname:
            raise CrowdFailed(f"{settings.url} is no http:// address.")
        self._host, self._port = url.hostname, url.port or 80
        self._settings = settings
        self._clicks = clicks
        _write_requests(clicks, tokens, settings.sale_id, url.netloc)
        self._rng = random.Random(settings.seed)
        self.tally = Tally()
        self._due: deque[Click] = deque()  # bounded by the plan
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        self._all_closed = asyncio.Event()
        self._bug: BaseException | None = None
        self._stopping = False
        self._start_s = 0.0
        self._last_answer_s = 0.0
        self._cpu_s = 0.0

    async def run(self, begin: Begin | None = None) -> CrowdReport:
        """The whole plan, bounded in time. Raises CrowdFailed if nobody listens at the start."""
        try:
            await self._open_connections()
            if begin is not None:
                await asyncio.sleep(await begin() - time.monotonic())
            return await self._rush()
        finally:
            await self._stop()

    async def _rush(self) -> CrowdReport:
        # The plan is long-lived: without this, full collections walk over it again and again.
        gc.collect()
        gc.freeze()
        self._cpu_s = time.process_time()
        self._start_s = self._last_answer_s = time.monotonic()
        self._spawn(self._pace())
        self._spawn(self._sweep())
        try:
            async with asyncio.timeout(self._settings.seconds_max):
                await self._done.wait()
        except TimeoutError:
            self.tally.conclude(UNFINISHED, len(self._clicks) - self.tally.settled)
        finally:
            gc.unfreeze()
        if self._bug is not None:
            raise self._bug
        return CrowdReport(
            clicks=len(self._clicks),
            seconds=self._last_answer_s - self._start_s,
            last_answer_s=self._last_answer_s,
            cpu_seconds=time.process_time() - self._cpu_s,
            tally=self.tally,
        )

    # The clock's side: clicks become due.

    async def _pace(self) -> None:
        position, clicks = 0, self._clicks
        while position < len(clicks):
            elapsed_s = time.monotonic() - self._start_s
            while position < len(clicks) and clicks[position].at_s <= elapsed_s:
                self._due.append(clicks[position])
                position += 1
            self._dispatch()
            await asyncio.sleep(TICK_SECONDS)
        if not clicks:
            self._done.set()

    async def _sweep(self) -> None:
        limit_s = self._settings.request_seconds_max
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now_s = time.monotonic()
            self.tally.fold()
            for connection in tuple(self._connections):
                if connection.work is not None and now_s - connection.sent_s > limit_s:
                    self.tally.timeouts += 1
                    connection.abort()

    def _dispatch(self) -> None:
        while self._due and self._idle:
            self._send(self._idle.pop(), self._due.popleft())

    def _send(self, connection: Connection, click: Click) -> None:
        click.attempts += 1
        self.tally.requests += 1
        connection.send(click, click.request)

    # The connections' side: answers come, connections go.

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        click: Click = connection.work
        connection.work = None
        now_s = self._last_answer_s = time.monotonic()
        self.tally.exchanges.add(now_s - connection.sent_s)
        self.tally.statuses[status] += 1
        self.tally.answers_of_second[int(now_s - self._start_s)] += 1
        if connection.is_open:
            if self._due:
                self._send(connection, self._due.popleft())
            else:
                self._idle.append(connection)
        if status in {429, 503}:
            self._repeat(click, connection.retry_after_s, SHED)
        else:
            self._settle(click, status, body, now_s)

    def closed(self, connection: Connection) -> None:
        if connection not in self._connections:
            return  # It never came to be used; whoever opened it sees to that.
        self._connections.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._stopping:
            if not self._connections:
                self._all_closed.set()
            return
        self.tally.disconnects += 1
        click, connection.work = connection.work, None
        if click is not None:
            self._repeat(click, None, LOST)
        self._spawn(self._reconnect())

    def _repeat(self, click: Click, retry_after_s: float | None, outcome: str) -> None:
        if click.attempts >= self._settings.attempts_max:
            self._conclude(outcome)
            return
        wait_s = min(BACKOFF_SECONDS[0] * 2 ** (click.attempts - 1), BACKOFF_SECONDS[1])
        if retry_after_s is not None:
            wait_s = min(retry_after_s, RETRY_AFTER_SECONDS_MAX)
        # Jitter, or all who were shed together would come back together.
        wait_s += self._rng.uniform(0, max(wait_s, BACKOFF_SECONDS[0]))
        asyncio.get_running_loop().call_later(wait_s, self._again, click)

    def _again(self, click: Click) -> None:
        if not self._stopping:
            self._due.append(click)
            self._dispatch()

    def _settle(self, click: Click, status: int, body: bytes, now_s: float) -> None:
        latency_s = now_s - self._start_s - click.at_s
        self.tally.latencies.add(latency_s)
        try:
            answer = _decode(body)
        except msgspec.DecodeError:
            self.tally.broken.append(f"status {status} with a body that is no JSON of ours")
            answer = _Answer()
        if status in {200, 201} and answer.reservation_id:
            created = status == 201
            outcome = self.tally.promise(click.key, answer.reservation_id, now_s, created=created)
            if outcome == ACCEPTED:
                self.tally.accepted_latencies.add(latency_s)
            self._conclude(outcome)
        else:
            self._conclude(answer.code or f"status_{status}")

    def _conclude(self, outcome: str) -> None:
        self.tally.conclude(outcome)
        if self.tally.settled >= len(self._clicks):
            self._done.set()

    # Opening, reopening and closing.

    async def _open_connections(self) -> None:
        count = min(self._settings.connections_max, max(1, len(self._clicks)))
        results = await asyncio.gather(*(self._connect() for _ in range(count)))
        if not any(results):
            raise CrowdFailed(f"Nobody listens at {self._settings.url}: is the engine running?")
        for connected in results:
            if not connected:
                self._spawn(self._reconnect())

    async def _connect(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self._host, self._port
                )
        except (OSError, TimeoutError):
            return False
        # Used from here on and not before: one whose opening is cancelled is never reported closed.
        if connection.is_open:
            self._connections.add(connection)
            self._idle.append(connection)
            self._dispatch()
        return connection.is_open

    async def _reconnect(self) -> None:
        wait_s = BACKOFF_SECONDS[0]
        while not await self._connect():
            await asyncio.sleep(self._rng.uniform(wait_s / 2, wait_s))
            wait_s = min(2 * wait_s, BACKOFF_SECONDS[1])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bug = error
            self._done.set()

    async def _stop(self) -> None:
        self._stopping = True
        for task in tuple(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._connections:
            self.tally.fold()
            for connection in tuple(self._connections):
                connection.abort()
            await self._all_closed.wait()


def _write_requests(
    clicks: Sequence[Click], tokens: Sequence[str], sale_id: str, authority: str
) -> None:
    """Puts every click's request together beforehand; those with the same key are the same bytes."""
    head = (
        f"POST /v1/sales/{sale_id}/reservations HTTP/1.1\r\n"
        f"Host: {authority}\r\nContent-Type: application/json\r\n"
    ).encode()
    form = head + b"Authorization: Bearer %b\r\nIdempotency-Key: %b\r\nContent-Length: %d\r\n\r\n%b"
    written: dict[tuple[int, bytes], bytes] = {}
    for click in clicks:
        name = (click.buyer, click.key)
        if name not in written:
            token = tokens[click.buyer].encode()
            written[name] = form % (token, click.key, len(click.body), click.body)
        click.request = written[name]
