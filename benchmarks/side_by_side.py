"""Our front beside its peers, in one run: CPU per request, requests/s at saturation, latencies, ratios.

    python -m benchmarks.side_by_side [--folder FOLDER]

One process of each server on one core, wrk with 256 kept-alive connections on another, Redis in
strict durability. Every trial warms up and is measured twice, interleaved (A B C … A B C …).
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks import contenders, rig
from benchmarks.cores import share_out
from benchmarks.figures import Figure, at_least, at_most, make_console, number_text
from benchmarks.trials import (
    CONSTANT,
    FOREIGN,
    FORGED,
    REPLAY,
    RESERVE,
    SOLD_OUT,
    STATUS,
    Bench,
    Measurement,
    Trial,
)
from benchmarks.wrk import CONNECTIONS, WrkFailed, wrk_missing
from engine.config import Durability
from engine.servers import ServerFailed

ROUNDS: Final = 2
METHOD: Final = (
    f"wrk, one thread, {CONNECTIONS} connections, one server process on a core of its own, Redis strict "
    "unless said otherwise; of two interleaved rounds the lower CPU, and rate and latencies of the "
    "faster one"
)
US: Final = "µs / request"
# How many times our front's CPU a peer takes; None: shown, nothing promised.
PEERS_AT_LEAST: Final = {"nginx_lua": 2.0, "go": 2.5, "naive": 8.0, "route": None, "bare": None}
# CPU of our front for what is no new reservation.
LOADS_AT_MOST: Final = {
    "sold_out": 10.0,
    "status": 10.0,
    "replay": None,
    "forged": None,
    "foreign": None,
}
OTHERS_SHARE_MAX: Final = 0.1
Say = Callable[[str], None]


class NothingToMeasure(Exception):
    """Why the side-by-side cannot run here, in one sentence."""


def make_servers() -> list[Trial]:
    """The same reservations for every server; the constants are what HTTP alone costs."""
    return [
        Trial("gate", "our gate", contenders.GATE, RESERVE),
        Trial("nginx_static", "nginx, static 201", contenders.NGINX_STATIC, CONSTANT),
        Trial("nginx_lua", "nginx + Lua + Redis", contenders.NGINX_LUA, RESERVE),
        Trial("go", "Go: gin + redigo", contenders.GO, RESERVE),
        Trial("route", "our aiohttp route", contenders.ROUTE, RESERVE),
        Trial("bare", "bare aiohttp, static 201", contenders.BARE, CONSTANT),
        Trial("naive", "naive aiohttp + redis-py", contenders.NAIVE, RESERVE),
    ]


def make_loads() -> list[Trial]:
    """What else our front is asked. Where there is no gate the route answers."""
    ours = contenders.ROUTE if contenders.GATE.missing() else contenders.GATE
    return [
        Trial("balanced", "accepted, balanced", ours, RESERVE, Durability.BALANCED),
        Trial("foreign", "accepted, PyJWT's token", ours, FOREIGN, seconds=2),
        Trial("replay", "replayed 200", ours, REPLAY, seconds=2),
        Trial("sold_out", "refused 409, none left", ours, SOLD_OUT, seconds=2),
        Trial("forged", "forged token 401", ours, FORGED, seconds=2),
        Trial("status", "sale status 200", ours, STATUS, seconds=2),
    ]


def in_order(servers: list[Trial], loads: list[Trial]) -> list[Trial]:
    """The order of a round: what a target compares is measured close together, for others come and
    go. The gate, then balanced durability, then the peers."""
    return [servers[0], loads[0], *servers[1:], *loads[1:]]


def measure(folder: Path, say: Say = lambda _: None) -> dict[str, Any]:
    """All trials; side_by_side.json in `folder` holds what is known so far, after each of them.

    Raises NothingToMeasure; TrialFailed, WrkFailed or ServerFailed are told per trial in "failed".
    """
    if sentence := wrk_missing():
        raise NothingToMeasure(f"{sentence}; {contenders.SETUP}")
    trials = in_order(make_servers(), make_loads())
    skipped = {
        trial.name: sentence
        for trial in trials
        if (sentence := trial.contender.missing()) is not None
    }
    here = [trial for trial in trials if trial.name not in skipped]
    if any(trial.contender is contenders.GO for trial in here):
        say("side_by_side: compiling the Go peer")
        contenders.build_go_peer()
    return _run_rounds(folder, here, skipped, say)


def _run_rounds(
    folder: Path, trials: list[Trial], skipped: dict[str, str], say: Say
) -> dict[str, Any]:
    cores = share_out(os.sched_getaffinity(0))
    runs, failed = list[Measurement](), dict[str, str]()
    result = _result(trials, runs, skipped, failed, str(cores))
    with rig.postgres() as postgres, rig.temporary_folder() as scratch:
        bench = Bench(scratch, postgres.url, cores)
        say("side_by_side: writing tokens")
        bench.prepare()
        steps = [(number, trial) for number in range(1, ROUNDS + 1) for trial in trials]
        for step, (number, trial) in enumerate(steps, 1):
            say(f"side_by_side {step}/{len(steps)}: {trial.title}, round {number}")
            if trial.name in failed:
                continue
            try:
                runs.append(bench.run(trial))
            except (AssertionError, OSError, WrkFailed, ServerFailed) as error:
                failed[trial.name] = str(error)
            result = _result(trials, runs, skipped, failed, str(cores))
            _keep(folder, result)
    return result


def _keep(folder: Path, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (folder / "side_by_side.json").write_text(text)


def _result(
    trials: Sequence[Trial],
    runs: Sequence[Measurement],
    skipped: dict[str, str],
    failed: dict[str, str],
    cores: str,
) -> dict[str, Any]:
    best = {
        trial.name: asdict(combine(own)) | {"title": trial.title, "does": trial.contender.does}
        for trial in trials
        if (own := [run for run in runs if run.trial == trial.name]) and trial.name not in failed
    }
    servers = {trial.name for trial in make_servers()}
    ours = "gate" if "gate" in best else "route"
    return {
        "method": METHOD,
        "cores": cores,
        "connections": CONNECTIONS,
        "durability": Durability.STRICT.value,
        "ours": ours,
        "servers": {name: found for name, found in best.items() if name in servers},
        "loads": {name: found for name, found in best.items() if name not in servers},
        "runs": [asdict(run) for run in runs],
        "skipped": skipped,
        "failed": failed,
        "figures": [figure.as_dict() for figure in make_figures(best, ours)],
    }


def combine(runs: Sequence[Measurement]) -> Measurement:
    """The lower CPU figures: noise only adds. Everything else is of the faster run."""
    fastest = max(runs, key=lambda run: run.requests_per_second)
    lowest = {
        "front_us": min(run.front_us for run in runs),
        "redis_us": min(run.redis_us for run in runs),
    }
    return Measurement(**(asdict(fastest) | lowest))


def make_figures(best: dict[str, dict[str, Any]], ours: str) -> list[Figure]:
    """The numbers that were promised, as far as they were measured."""
    if ours not in best:
        return []
    own = best[ours]
    return [
        at_most(f"{ours}, accepted: front", own["front_us"], US, 14),
        at_most(f"{ours}, accepted: Redis", own["redis_us"], US, 4),
        Figure(f"{ours}, accepted: at saturation", own["requests_per_second"], "requests/s"),
        Figure(f"{ours}, accepted: p99 there", own["p99_ms"], "ms"),
        *_peer_figures(best, ours),
        *_load_figures(best, ours),
        *_durability_figures(best, own),
    ]


def _peer_figures(best: dict[str, dict[str, Any]], ours: str) -> list[Figure]:
    own, figures = best[ours]["front_us"], list[Figure]()
    if static := best.get("nginx_static"):
        times = own / static["front_us"]
        words = beside_text(own, static["front_us"], "µs")
        figures.append(at_most(f"{ours} : nginx, static 201", times, "×", 2.0, words))
    for name, least in PEERS_AT_LEAST.items():
        if name == ours or name not in best:
            continue
        peer = best[name]["front_us"]
        title, words = f"{best[name]['title']} : {ours}", beside_text(peer, own, "µs")
        figures.append(
            Figure(title, peer / own, "×", ratio=words)
            if least is None
            else at_least(title, peer / own, "×", least, words)
        )
    return figures


def _load_figures(best: dict[str, dict[str, Any]], ours: str) -> list[Figure]:
    own, figures = best[ours]["front_us"], list[Figure]()
    for name, limit in LOADS_AT_MOST.items():
        if name in best:
            value = best[name]["front_us"]
            title, words = f"{ours}, {best[name]['title']}", f"{value / own:.2f} × accepted"
            figures.append(
                Figure(title, value, US, ratio=words)
                if limit is None
                else at_most(title, value, US, limit, words)
            )
    return figures


def _durability_figures(best: dict[str, dict[str, Any]], strict: dict[str, Any]) -> list[Figure]:
    if (balanced := best.get("balanced")) is None:
        return []
    rates = strict["requests_per_second"], balanced["requests_per_second"]
    costs = strict["front_us"] + strict["redis_us"], balanced["front_us"] + balanced["redis_us"]
    return [
        at_least(
            "strict : balanced, rate", rates[0] / rates[1], "×", 0.8, beside_text(*rates, "/s")
        ),
        Figure("strict : balanced, CPU", costs[0] / costs[1], "×", ratio=beside_text(*costs, "µs")),
    ]


def beside_text(one: float, other: float, unit: str) -> str:
    return f"{number_text(one)} : {number_text(other)} {unit}"


def as_table(result: dict[str, Any]) -> Table:
    """One line per server, then one per other load of ours. Fits a terminal of 100 columns."""
    ours = result["servers"].get(result["ours"])
    table = Table(title=f"Side by side\n{result['cores']}", title_justify="left", box=SIMPLE_HEAD)
    for name in ("", "front µs", "× ours", "Redis µs", "requests/s", "busy", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name))
    for name, found in result["servers"].items():
        table.add_row(*_row(found, ours), style="bold" if name == result["ours"] else "")
    table.add_section()
    for found in result["loads"].values():
        table.add_row(*_row(found, ours))
    return table


def _row(found: dict[str, Any], ours: dict[str, Any] | None) -> tuple[str, ...]:
    return (
        found["title"],
        f"{found['front_us']:.1f}",
        f"{found['front_us'] / ours['front_us']:.2f}" if ours else "",
        f"{found['redis_us']:.1f}",
        f"{found['requests_per_second']:,.0f}",
        f"{found['front_busy']:.0%}",
        f"{found['p50_ms']:.1f}",
        f"{found['p99_ms']:.1f}",
    )


def legend(result: dict[str, Any]) -> list[str]:
    """What the table does not say of itself: who does how much, and how it was measured."""
    does = [f"  {found['title']}: {found['does']}" for found in result["servers"].values()]
    return [
        f"{METHOD}. µs are of CPU per request, of all threads; busy is the server's share of its core.",
        *_noise(result["runs"]),
        "What each does beside HTTP:",
        *does,
        *sentences(result),
    ]


def _noise(runs: Sequence[dict[str, Any]]) -> list[str]:
    """CPU per request grows when others use the same cores and caches; ratios do less."""
    shares = sorted(run["others_share"] for run in runs)
    if not shares or shares[-1] <= OTHERS_SHARE_MAX:
        return []
    return [
        f"NOT A QUIET MACHINE: other programs took {shares[len(shares) // 2]:.0%} of all cores in the "
        f"middle trial, {shares[-1]:.0%} in the worst. CPU figures are higher than they should be."
    ]


def show(result: dict[str, Any], console: Console) -> None:
    console.print(as_table(result))
    console.print("\n".join(legend(result)), highlight=False, markup=False)


def sentences(result: dict[str, Any]) -> list[str]:
    """What was skipped, and what failed."""
    skipped = [f"{name} skipped: {sentence}." for name, sentence in result["skipped"].items()]
    return skipped + [f"{name} FAILED: {text}" for name, text in result["failed"].items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, default=Path("."), help="for side_by_side.json")
    options = parser.parse_args()
    console = make_console()
    try:
        result = measure(options.folder, lambda text: console.print(text, style="dim"))
    except NothingToMeasure as nothing:
        console.print(f"Skipped: {nothing}.")
        return
    show(result, console)
    raise SystemExit(bool(result["failed"]))


if __name__ == "__main__":
    main()
