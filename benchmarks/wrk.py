"""Runs wrk, the load generator, and reads what it prints. wrk is a closed loop: its latencies say how
long 256 connections that wait for each other wait, not what buyers would feel at a given rate."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.cores import pinned

CONNECTIONS: Final = 256
_MILLISECONDS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}

# All requests are built once, in init: otherwise wrk becomes the limit.
_SCRIPT: Final = """
function init()
  local parts = %s
  requests, at = {}, 0
  for _, key in ipairs(parts.keys) do
    for buyer in io.lines(parts.buyers) do
      requests[#requests + 1] = parts.head .. buyer .. parts.middle .. key .. parts.tail
    end
  end
end
function request()
  at = at %% #requests + 1
  return requests[at]
end
"""


class WrkFailed(Exception):
    """wrk could not run, or printed what nobody understands."""


@dataclass(frozen=True)
class WrkResult:
    """What one run of wrk said. Times in milliseconds."""

    requests: int
    seconds: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    refused: int  # answers other than 2xx and 3xx
    broken: int  # connections that failed to open, to be read or to be written
    timeouts: int  # answers later than two seconds


class Requests(NamedTuple):
    """What to send, once for each key and line of the file `buyers`: head, line, middle, key, tail."""

    buyers: Path
    keys: Sequence[str]
    head: str
    middle: str = ""
    tail: str = ""


def wrk_missing() -> str | None:
    return None if shutil.which("wrk") else "wrk is not here"


def run_wrk(
    requests: Requests, port: int, *, core: int, seconds: int, connections: int = CONNECTIONS
) -> WrkResult:
    """One run on one thread and one core. Raises WrkFailed."""
    script = requests.buyers.with_name("requests.lua")
    script.write_text(_SCRIPT % lua_table(requests))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        pinned(core, [*command, f"http://127.0.0.1:{port}"]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WrkFailed(f"wrk ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return parse_wrk(done.stdout)


def lua_table(requests: Requests) -> str:
    """The parts of the requests as Lua source."""
    texts = {
        "buyers": str(requests.buyers),
        "head": requests.head,
        "middle": requests.middle,
        "tail": requests.tail,
    }
    fields = [f"{name} = {_lua_text(text)}" for name, text in texts.items()]
    keys = ", ".join(map(_lua_text, requests.keys))
    return f"{{ keys = {{ {keys} }}, {', '.join(fields)} }}"


def _lua_text(text: str) -> str:
    """Every byte that Lua might read otherwise is written as its number."""
    plain = re.compile(r"[ !#-\[\]-~]")
    return f'"{"".join(c if plain.match(c) else f"{chr(92)}{ord(c):03d}" for c in text)}"'


def parse_wrk(text: str) -> WrkResult:
    """Reads wrk's report with --latency. Raises WrkFailed."""
    asked = re.search(r"(\d+) requests in ([\d.]+(?:us|ms|s|m|h))", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p50, p99 = (re.search(rf"{percent}%\s+([\d.]+\w+)", text) for percent in (50, 99))
    if not (asked and rate and p50 and p99):
        raise WrkFailed(f"wrk said something else than expected:\n{text}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    *broken, timeouts = map(int, errors.groups()) if errors else (0, 0)
    return WrkResult(
        requests=int(asked[1]),
        seconds=milliseconds(asked[2]) / 1000,
        requests_per_second=float(rate[1]),
        p50_ms=milliseconds(p50[1]),
        p99_ms=milliseconds(p99[1]),
        refused=int(refused[1]) if refused else 0,
        broken=sum(broken),
        timeouts=timeouts,
    )


def milliseconds(text: str) -> float:
    """`636.00us`, `1.20ms`, `2.03s`, `1.50m` in milliseconds."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m|h)", text)
    if match is None:
        raise WrkFailed(f"wrk printed a time nobody understands: {text}")
    return float(match[1]) * _MILLISECONDS[match[2]]


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path
