"""Runs one crowd, in this process or in several at once, each with a share of the buyers.

Leaves clicking to `crowd`. Processes share nothing while they run: a buyer's clicks are all of one process.
"""

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final, NamedTuple

import msgspec
import uvloop

from loadtest.crowd import Crowd, CrowdFailed, CrowdSettings
from loadtest.plan import Click
from loadtest.tally import ACCEPTED, CrowdReport, Tally

TELL_SECONDS: Final = 0.25
START_SECONDS: Final = 0.1  # From "all are ready" until all begin.
STOP_SECONDS_MAX: Final = 5.0


class Standing(NamedTuple):
    """How far a crowd is."""

    settled: int = 0
    accepted: int = 0


class Ready(NamedTuple):
    """A process has its connections open."""


class Failed(NamedTuple):
    """A process could not start its crowd. One sentence."""

    reason: str


class Part(NamedTuple):
    """What one process is to do."""

    settings: CrowdSettings
    clicks: list[Click]
    tokens: list[str]


class Generators:
    """Runs one plan once."""

    def __init__(
        self,
        settings: CrowdSettings,
        clicks: Sequence[Click],
        tokens: Sequence[str],
        processes: int = 1,
    ) -> None:
        self.clicks_total: Final = len(clicks)
        self._crowd = Crowd(settings, clicks, tokens) if processes == 1 else None
        parts = [] if self._crowd else split(settings, clicks, tokens, processes)
        self._children = [_Child(part) for part in parts]

    @property
    def standing(self) -> Standing:
        """Over all processes; up to TELL_SECONDS old."""
        if self._crowd is not None:
            return _standing(self._crowd)
        told = [child.standing for child in self._children]
        return Standing(sum(s.settled for s in told), sum(s.accepted for s in told))

    async def run(self) -> CrowdReport:
        """The whole plan. Raises CrowdFailed."""
        if self._crowd is not None:
            return await self._crowd.run()
        try:
            await asyncio.gather(*(child.ready() for child in self._children))
            start_s = time.monotonic() + START_SECONDS
            reports = await asyncio.gather(*(child.run(start_s) for child in self._children))
        finally:
            for child in self._children:
                child.stop()
        return merge(reports, start_s)


def split(
    settings: CrowdSettings, clicks: Sequence[Click], tokens: Sequence[str], processes: int
) -> list[Part]:
    """Deals the buyers out in turn. Changes the clicks: each names its buyer among those of its part."""
    connections = max(1, settings.connections_max // processes)
    parts = [
        Part(
            msgspec.structs.replace(
                settings, connections_max=connections, seed=settings.seed + number
            ),
            [],
            list(tokens[number::processes]),
        )
        for number in range(processes)
    ]
    for click in clicks:
        click.buyer, number = divmod(click.buyer, processes)
        parts[number].clicks.append(click)
    return parts


def merge(reports: Sequence[CrowdReport], start_s: float) -> CrowdReport:
    """One report of all parts."""
    tally = Tally()
    for report in reports:
        tally.merge(report.tally)
    last_answer_s = max(report.last_answer_s for report in reports)
    return CrowdReport(
        clicks=sum(report.clicks for report in reports),
        seconds=max(0.0, last_answer_s - start_s),
        last_answer_s=last_answer_s,
        cpu_seconds=sum(report.cpu_seconds for report in reports),
        tally=tally,
    )


class _Child:
    """The parent's end of one process."""

    def __init__(self, part: Part) -> None:
        context = multiprocessing.get_context("spawn")  # Nothing of ours is safe to fork.
        self._pipe, self._other_end = context.Pipe()
        self._process = context.Process(target=_generate, args=(self._other_end, part), daemon=True)
        self.standing = Standing()

    async def ready(self) -> None:
        """Starts it, and waits until its connections are open."""
        await asyncio.to_thread(self._process.start)
        self._other_end.close()  # So that its end is noticed.
        await self._hear(Ready)

    async def run(self, start_s: float) -> CrowdReport:
        self._pipe.send(start_s)
        report: CrowdReport = await self._hear(CrowdReport)
        return report

    async def _hear(self, kind: type[Any]) -> Any:
        """The next message of a kind. Raises CrowdFailed."""
        while True:
            try:
                message = await asyncio.to_thread(self._pipe.recv)
            except (EOFError, OSError) as error:
                raise CrowdFailed("A process of the generator ended by itself.") from error
            match message:
                case Standing():
                    self.standing = message
                case Failed(reason=reason):
                    raise CrowdFailed(reason)
                case _ if isinstance(message, kind):
                    return message

    def stop(self) -> None:
        """Idempotent, and safe before it was started."""
        if self._process.pid is not None:
            self._process.terminate()
            self._process.join(STOP_SECONDS_MAX)
        for end in (self._pipe, self._other_end):
            end.close()


def _generate(pipe: Pipe, part: Part) -> None:
    """The whole life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Whoever started it sees to its end.
    uvloop.run(_run(pipe, part))


async def _run(pipe: Pipe, part: Part) -> None:
    async def begin() -> float:
        pipe.send(Ready())
        start_s: float = await asyncio.to_thread(pipe.recv)
        return start_s

    try:
        crowd = Crowd(*part)
        telling = asyncio.create_task(_tell(pipe, crowd))
        report = await crowd.run(begin)
        telling.cancel()
        pipe.send(report)
    except CrowdFailed as error:
        pipe.send(Failed(str(error)))


async def _tell(pipe: Pipe, crowd: Crowd) -> None:
    while True:
        await asyncio.sleep(TELL_SECONDS)
        pipe.send(_standing(crowd))


def _standing(crowd: Crowd) -> Standing:
    return Standing(crowd.tally.settled, crowd.tally.outcomes[ACCEPTED])
