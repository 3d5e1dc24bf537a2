"""Sends the shop's requests: by wrk for what is counted, one after the other for what is timed."""

import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from benchmarks.capacity.stand import Stand
from benchmarks.capacity.usage import cpu_seconds
from benchmarks.cores import pinned
from benchmarks.wrk import WrkResult, parse_wrk

CONNECTIONS: Final = 32  # Shoppers who click at once, not a crowd.
WARM_SECONDS: Final = 1
REFUSED_SHARE_MAX: Final = 0.001  # A stall of the machine sheds a few.

# Whole requests, built before the first is sent: head|header|header~body.
_SCRIPT: Final = """
function init()
  requests, at = {}, 0
  for line in io.lines("@FILE@") do
    local head, body = line:match("^(.-)~(.*)$")
    requests[#requests + 1] = head:gsub("|", "\\r\\n") .. "\\r\\n\\r\\n" .. body
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"""


class Refused(Exception):
    """Answers that were none."""


def request_line(method: str, path: str, *headers: str, body: str = "") -> str:
    """One request, as the script reads it."""
    length = (f"Content-Length: {len(body)}", "Content-Type: application/json") if body else ()
    return (
        "|".join((f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, *length)) + f"~{body}"
    )


def measured(under_test: Stand, name: str, lines: Sequence[str], seconds: int) -> dict[str, Any]:
    """Rate, latency and the front's CPU per request, after a warm-up. Raises Refused."""
    script = _write(under_test.folder, name, lines)
    wrk(under_test, script, WARM_SECONDS)
    before = cpu_seconds(under_test.hops["front"])
    result = wrk(under_test, script, seconds)
    cpu_s = cpu_seconds(under_test.hops["front"]) - before
    if result.broken or result.refused > result.requests * REFUSED_SHARE_MAX:
        raise Refused(
            f"{name}: {result.refused} refused, {result.broken} broken of {result.requests}"
        )
    return {
        "per_second": result.requests_per_second,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "front_us": cpu_s / result.requests * 1e6,
    }


def wrk(under_test: Stand, script: Path, seconds: int, connections: int = CONNECTIONS) -> WrkResult:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    core = under_test.generator_cores[0]
    done = subprocess.run(
        pinned(core, [*command, f"http://127.0.0.1:{under_test.port}"]),
        capture_output=True,
        text=True,
        check=True,
    )
    return parse_wrk(done.stdout)


def _write(folder: Path, name: str, lines: Sequence[str]) -> Path:
    path, script = folder / f"{name}.txt", folder / f"{name}.lua"
    path.write_text("".join(f"{line}\n" for line in lines))
    script.write_text(_SCRIPT.replace("@FILE@", str(path)))
    return script


async def timed(calls: Sequence[Callable[[], Awaitable[object]]]) -> list[float]:
    """Milliseconds of each, one after the other."""
    found: list[float] = []
    for call in calls:
        began = time.perf_counter()
        await call()
        found.append((time.perf_counter() - began) * 1000)
    return found


def percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99, rounded to a hundredth."""
    cuts = quantiles(times_ms, n=100, method="inclusive")
    return {f"p{at}_ms": round(cuts[at - 1], 2) for at in (50, 95, 99)}
