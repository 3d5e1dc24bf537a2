"""Starts the generators, one process per core given to them, and adds up what they report."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from hdrh.histogram import HdrHistogram

from benchmarks.capacity.openloop import Plan, Result, histogram

COMMAND: Final = (sys.executable, "-m", "benchmarks.capacity.openloop")
ROOT: Final = Path(__file__).resolve().parents[2]
HEAD_START_SECONDS: Final = (
    0.3  # From the word to the first request: every generator is waiting then.
)
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "max": 100.0}
LAG_MS_MAX: Final = (
    1.0  # Sent later than this, at p99: the generator was the limit, not the engine.
)
SHARE_MAX: Final = 0.95  # of its core


@dataclass(frozen=True)
class Offer:
    """What is offered to the engine in one step."""

    rate: float
    seconds: float
    warm_seconds: float = 0.5
    arrivals: str = "poisson"
    connections: int = 512
    patience_seconds: float = 1.0
    good_seconds: float = 1.0
    seed: int = 1


@dataclass(frozen=True)
class Target:
    """Where it is sent, by whom, and from which cores."""

    host: str
    port: int
    path: str
    body: str
    tokens_file: Path
    key: str
    cores: tuple[int, ...]


async def send(
    target: Target, offer: Offer, started: Callable[[], None], ended: Callable[[], None]
) -> list[Result]:
    """Sends the offer. `started` and `ended` are called when the measured seconds begin and end."""
    generators = [
        await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=2**24,
        )
        for _ in target.cores
    ]
    try:
        for number, generator in enumerate(generators):
            await _tell(generator, msgspec.json.encode(_plan(target, offer, number)).decode())
        for generator in generators:
            assert await _hear(generator) == b"ready\n"
        began = time.monotonic() + HEAD_START_SECONDS
        for generator in generators:
            await _tell(generator, repr(began))
        await asyncio.sleep(began + offer.warm_seconds - time.monotonic())
        started()
        await asyncio.sleep(began + offer.warm_seconds + offer.seconds - time.monotonic())
        ended()
        return [msgspec.json.decode(await _hear(each), type=Result) for each in generators]
    finally:
        for generator in generators:
            if generator.returncode is None:
                generator.terminate()
            await generator.wait()


def _plan(target: Target, offer: Offer, number: int) -> Plan:
    count = len(target.cores)
    return Plan(
        host=target.host,
        port=target.port,
        path=target.path,
        body=target.body,
        tokens_file=str(target.tokens_file),
        key=f"{target.key}.{number}",
        rate=offer.rate / count,
        seconds=offer.seconds,
        warm_seconds=offer.warm_seconds,
        arrivals=offer.arrivals,
        connections=max(1, offer.connections // count),
        patience_seconds=offer.patience_seconds,
        good_seconds=offer.good_seconds,
        seed=offer.seed + number,
        core=target.cores[number],
    )


async def _tell(generator: asyncio.subprocess.Process, line: str) -> None:
    assert generator.stdin is not None
    generator.stdin.write(f"{line}\n".encode())
    await generator.stdin.drain()


async def _hear(generator: asyncio.subprocess.Process) -> bytes:
    assert generator.stdout is not None
    line = await generator.stdout.readline()
    if not line:
        raise GeneratorFailed("The load generator ended early; what it said is above.")
    return line


class GeneratorFailed(RuntimeError):
    """A generator process ended without a result."""


def as_figures(results: list[Result], seconds: float) -> dict[str, Any]:
    """What all generators saw together, ready for JSON."""
    outcomes: Counter[str] = Counter()
    for result in results:
        outcomes.update(result.outcomes)
    lag = _percentiles(_merged([result.lag for result in results]))
    shares = [result.cpu_seconds / result.seconds for result in results]
    due = sum(result.due for result in results)
    return {
        "offered_per_s": round(due / seconds, 1),
        "sent_per_s": round(sum(result.sent for result in results) / seconds, 1),
        "accepted_per_s": round(sum(r.accepted_in_time for r in results) / seconds, 1),
        "goodput_per_s": round(sum(result.good for result in results) / seconds, 1),
        "accepted": sum(result.accepted_total for result in results),
        "late": sum(result.late for result in results),
        "outcomes": dict(outcomes),
        "latency_ms": _percentiles(_merged([result.latency for result in results])),
        "accepted_latency_ms": _percentiles(_merged([r.accepted_latency for r in results])),
        "generator": {
            "processes": len(results),
            "cpu_share": round(max(shares), 3),
            "cpu_cores": round(sum(shares), 3),
            "lag_p99_ms": lag["p99"],
            "was_limit": lag["p99"] > LAG_MS_MAX or max(shares) > SHARE_MAX,
        },
    }


def _merged(encoded: list[str]) -> HdrHistogram:
    whole = histogram()
    for text in encoded:
        whole.decode_and_add(text)
    return whole


def _percentiles(of: HdrHistogram) -> dict[str, float]:
    """In milliseconds."""
    if not of.get_total_count():
        return dict.fromkeys(PERCENTILES, 0.0)
    return {
        name: round(of.get_value_at_percentile(percent) / 1000, 3)
        for name, percent in PERCENTILES.items()
    }
