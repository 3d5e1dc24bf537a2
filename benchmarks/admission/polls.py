"""What a poll of the queue costs a front over HTTP, beside reading the sale and beside nginx's constant.

    python -m benchmarks.admission.polls

wrk sends, on a core of its own; CPU is that of the front's own accounting. Redis is asked for its
commandstats before and after, and over as long a time without any poll: the rest are the fronts' own
rhythms, which a poll has no part in.
"""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop
from redis import Redis

from benchmarks import contenders, rig
from benchmarks.capacity.stand import Stand, database, open_engine, stand
from benchmarks.capacity.usage import cpu_seconds
from benchmarks.contenders import Place
from benchmarks.cores import pinned
from benchmarks.figures import Figure, at_most
from benchmarks.wrk import CONNECTIONS, WrkResult, parse_wrk, wrk_missing
from engine.admission.room.settings import RoomSettings
from engine.core import Engine
from engine.model import Money
from engine.sales import SaleDocument, SaleItem

SALE: Final = "queue"
VISITORS: Final = 5_000
AT_ONCE: Final = 64  # Visitors who take their tickets at the same moment.
SECONDS: Final = 4
WARM_SECONDS: Final = 1
READY_SECONDS_MAX: Final = 10.0
POLL_US_MAX: Final = 10.0
REFUSED_SHARE_MAX: Final = 0.001  # A stall of the machine sheds a few.

# Whole requests, one per visitor, built before the first is sent.
_SCRIPT: Final = """
function init()
  requests, at = {}, 0
  for line in io.lines("@FILE@") do
    requests[#requests + 1] = line:gsub("|", "\\r\\n") .. "\\r\\n\\r\\n"
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"""


class Skipped(Exception):
    """Why this cannot be measured here, in a sentence."""


def measure(folder: Path) -> dict[str, Any]:  # noqa: ARG001  # as all parts
    if why := wrk_missing():
        raise Skipped(why)
    with (
        database() as postgres,
        stand(postgres, buyers=VISITORS) as under_test,
        rig.temporary_folder() as files,
    ):
        tickets = uvloop.run(_take_tickets(under_test))
        loads = {
            "poll": [_poll(under_test, *each) for each in tickets],
            "sale": [_head(under_test.port, f"/v1/sales/{SALE}")],
        }
        front = under_test.hops["front"]
        core = under_test.generator_cores[0]
        found: dict[str, Any] = {}
        for name, requests in loads.items():
            script = _write(files, name, requests)
            _wrk(script, under_test.port, core, WARM_SECONDS)
            found[name] = _bill(
                under_test, front, lambda s=script: _wrk(s, under_test.port, core, SECONDS)
            )  # type: ignore[misc]
        found["idle"] = _bill(under_test, front, lambda: time.sleep(SECONDS))
        if contenders.NGINX_STATIC.missing() is None:
            found["nginx"] = _nginx(under_test, files, core)
    return found | {"figures": [figure.as_dict() for figure in figures(found)]}


def figures(found: dict[str, Any]) -> list[Figure]:
    poll, sale = found["poll"], found["sale"]
    beside = f"GET the sale: {sale['us']:.1f}"
    if "nginx" in found:
        beside = f"nginx static: {found['nginx']['us']:.1f}; {beside}"
    calls = poll["redis"].get("evalsha", 0) - found["idle"]["redis"].get("evalsha", 0)
    ticks = f"the front's own: {found['idle']['redis'].get('evalsha', 0)} in {SECONDS} s"
    # Two rhythms of ten a second, each over a whole number of seconds: one beat more or less.
    beyond = max(0, calls - 2)
    return [
        at_most("a poll over HTTP, front CPU", round(poll["us"], 1), "µs", POLL_US_MAX, beside),
        Figure("polls answered", poll["per_second"], "/s"),
        at_most("scripts in Redis for them", beyond, "calls", 0, ticks),
    ]


async def _take_tickets(under_test: Stand) -> list[tuple[str, str]]:
    """(token, ticket) of each visitor, who entered as visitors do."""
    engine = await open_engine(under_test)
    try:
        await _put_up(engine)
        tokens = under_test.tokens_file.read_text().split()
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://{under_test.settings.host}:{under_test.port}/v1/sales/{SALE}/queue"
            await _until_open(session, url, tokens[0])
            tickets = await asyncio.gather(*(_enter(session, url, token) for token in tokens))
    finally:
        await engine.close()
    return list(zip(tokens, tickets, strict=True))


async def _put_up(engine: Engine) -> None:
    """A sale that is open, whose room serves one visitor a second: all others wait."""
    now = datetime.now(UTC)
    document = SaleDocument(
        sale_id=SALE,
        name={"en": "Queue"},
        opens_at=now - timedelta(minutes=1),
        closes_at=now + timedelta(days=1),
        per_user_max=2,
        reservation_seconds=900,
        items=(SaleItem("phone", {"en": "Phone"}, 10_000, Money(129900, "CNY")),),
        auto_capture=False,
        room=RoomSettings(on=True, pace_max=1),
    )
    await engine.sales.create(document, "benchmark")


async def _until_open(session: aiohttp.ClientSession, url: str, token: str) -> None:
    """The worker furnishes the room within a second."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline:
        async with session.post(url, headers=_bearer(token)) as answer:
            if answer.status == 201 and (await answer.json())["state"] != "open":
                return
        await asyncio.sleep(0.2)
    raise RuntimeError("The room did not open.")


async def _enter(session: aiohttp.ClientSession, url: str, token: str) -> str:
    async with session.post(url, headers=_bearer(token)) as answer:
        answer.raise_for_status()
        return str(answer.headers["Queue-Ticket"])


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _head(port: int, path: str) -> str:
    return f"GET {path} HTTP/1.1|Host: 127.0.0.1:{port}"


def _poll(under_test: Stand, token: str, ticket: str) -> str:
    head = _head(under_test.port, f"/v1/sales/{SALE}/queue")
    return f"{head}|Authorization: Bearer {token}|Queue-Ticket: {ticket}"


def _write(folder: Path, name: str, requests: list[str]) -> Path:
    lines, script = folder / f"{name}.txt", folder / f"{name}.lua"
    lines.write_text("".join(f"{request}\n" for request in requests))
    script.write_text(_SCRIPT.replace("@FILE@", str(lines)))
    return script


def _wrk(script: Path, port: int, core: int, seconds: int) -> WrkResult:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        pinned(core, [*command, f"http://127.0.0.1:{port}"]),
        capture_output=True,
        text=True,
        check=True,
    )
    return parse_wrk(done.stdout)


def _bill(under_test: Stand, pids: list[int], work: Callable[[], Any]) -> dict[str, Any]:
    """Front CPU per request, and what Redis was asked meanwhile, by command."""
    before, cpu_s = _commandstats(under_test), cpu_seconds(pids)
    said = work()
    cpu_s = cpu_seconds(pids) - cpu_s
    after = _commandstats(under_test)
    asked = {name: count - before.get(name, 0) for name, count in after.items()}
    found: dict[str, Any] = {"redis": {name: count for name, count in asked.items() if count}}
    if isinstance(said, WrkResult):
        if said.refused > said.requests * REFUSED_SHARE_MAX or said.broken:
            raise RuntimeError(f"{said.refused} were refused, {said.broken} connections broke")
        found |= {"requests": said.requests, "us": cpu_s / said.requests * 1e6}
        found |= {"per_second": said.requests_per_second, "p99_ms": said.p99_ms}
    return found


def _commandstats(under_test: Stand) -> dict[str, int]:
    assert under_test.settings.redis_url is not None
    with contextlib.closing(Redis.from_url(under_test.settings.redis_url)) as client:
        stats: Any = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}


def _nginx(under_test: Stand, folder: Path, core: int) -> dict[str, Any]:
    with _serving(under_test, folder) as (pid, port):
        script = _write(folder, "nginx", [_head(port, "/")])
        _wrk(script, port, core, WARM_SECONDS)
        return _bill(under_test, [pid], lambda: _wrk(script, port, core, SECONDS))


@contextlib.contextmanager
def _serving(under_test: Stand, folder: Path) -> Iterator[tuple[int, int]]:
    place = Place(folder, rig.free_port(), under_test.engine_cores[0], under_test.settings)
    with contenders.NGINX_STATIC.serve(place) as pid:
        yield pid, place.port


if __name__ == "__main__":
    print(json.dumps(measure(Path()), indent=1, ensure_ascii=False))
