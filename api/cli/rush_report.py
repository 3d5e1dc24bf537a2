"""What a rush came to: its numbers, and the table that shows them.

Speed is shown only of a run whose invariants hold: a fast wrong answer is no answer.
"""

import os
from pathlib import Path

import msgspec
from rich.table import Table

from api.cli.rush_orders import SaleUnits, StoredOrders
from loadtest.tally import ACCEPTED, LOST, REPLAYED, SHED, UNFINISHED, CrowdReport

PERCENTS = (50, 95, 99, 100)
MISSING_SHOWN_MAX = 5
_NAMED = {
    "sold_out": "sold out",
    "all_reserved": "all reserved",
    "limit_reached": "limited",
    SHED: "shed",
}
_ERRORS = (LOST, UNFINISHED)


class Milliseconds(msgspec.Struct, frozen=True):
    """A distribution in four numbers."""

    p50: float
    p95: float
    p99: float
    max: float


class RushReport(msgspec.Struct, frozen=True):
    """One rush. Durations in seconds; the drain times count from the last answer."""

    sale_id: str
    seed: int
    buyers: int
    rate: float | None  # None: a burst
    connections: int
    generators: int  # processes
    durability: str
    cores: int
    cpu: str
    clicks: int
    outcomes: dict[str, int]
    http_requests: int
    disconnects: int
    timeouts: int
    crowd_seconds: float
    requests_per_second: float
    accepted_per_second: float | None  # new reservations, from the first 201 to the last
    stored_per_second: float | None  # of them, from the first 201 until the last order was stored
    generator_cpu_us: float  # per request
    busiest_second: int  # answers in the busiest second
    latency_ms: Milliseconds  # intended → final answer, every click
    accepted_ms: Milliseconds  # intended → final answer, the accepted
    exchange_ms: Milliseconds  # sent → answered, every request
    acknowledged: int
    orders: StoredOrders
    units: SaleUnits
    stored_seconds: float | None
    paid_seconds: float | None
    broken: list[str]  # invariants that do not hold

    @property
    def holds(self) -> bool:
        return not self.broken

    @property
    def errors(self) -> int:
        """Clicks that got no answer, or one that the crowd does not expect."""
        expected = {ACCEPTED, REPLAYED, *_NAMED}
        return sum(count for name, count in self.outcomes.items() if name not in expected)


def summarize(crowd: CrowdReport) -> tuple[Milliseconds, Milliseconds, Milliseconds]:
    """Latency of all clicks, of the accepted, and of single requests."""
    tally = crowd.tally
    all_clicks, accepted, exchanges = (
        Milliseconds(*(round(s * 1000, 3) for s in latencies.percentiles(*PERCENTS)))
        for latencies in (tally.latencies, tally.accepted_latencies, tally.exchanges)
    )
    return all_clicks, accepted, exchanges


def cpu_model() -> str:
    """The processor's own name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown processor")


def cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def as_table(report: RushReport) -> Table:
    """The whole report for a terminal."""
    pace = "a burst" if report.rate is None else f"{report.rate:,.0f}/s"
    table = Table(
        title=f"Rush on {report.sale_id}: {report.buyers:,} buyers, {pace}, seed {report.seed}",
        title_justify="left",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in (*_outcome_rows(report), *_stored_rows(report)):
        table.add_row(*row)
    table.add_section()
    for row in _speed_rows(report) if report.holds else _broken_rows(report):
        table.add_row(*row)
    return table


def _outcome_rows(report: RushReport) -> list[tuple[str, str, str]]:
    outcomes = report.outcomes
    repeats = report.http_requests - report.clicks
    rows = [
        ("offered", f"{report.clicks:,}", f"clicks; {max(0, repeats):,} repeated"),
        ("accepted", f"{outcomes.get(ACCEPTED, 0):,}", "reservations"),
        ("replayed", f"{outcomes.get(REPLAYED, 0):,}", "same key, same answer"),
    ]
    rows += [(name, f"{outcomes.get(code, 0):,}", "") for code, name in _NAMED.items()]
    others = {
        name: count
        for name, count in outcomes.items()
        if name not in {ACCEPTED, REPLAYED, *_NAMED} and count
    }
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(others.items()))
    return [*rows, ("errors", f"{report.errors:,}", told)]


def _stored_rows(report: RushReport) -> list[tuple[str, str, str]]:
    units, orders = report.units, report.orders
    return [
        ("stored in Postgres", f"{orders.stored:,}", "orders of this crowd"),
        ("paid", f"{orders.paid:,}", f"{orders.awaiting_payment:,} await payment"),
        ("units sold", f"{units.sold:,}", f"of {units.stocked:,} in the sale"),
    ]


def _speed_rows(report: RushReport) -> list[tuple[str, str, str]]:
    return [
        ("crowd", f"{report.crowd_seconds:.2f} s", "first click to last answer"),
        ("requests", f"{report.requests_per_second:,.0f}/s", "answered, all the time"),
        ("accepted", _rate(report.accepted_per_second), "first 201 to last 201"),
        ("and stored", _rate(report.stored_per_second), "first 201 to last order"),
        ("busiest second", f"{report.busiest_second:,}", "answers in it"),
        ("", "p50 / p95 / p99 / max ms", ""),
        ("latency", _quartet(report.latency_ms), "click meant to final answer"),
        ("latency, accepted", _quartet(report.accepted_ms), "the same, of the accepted"),
        ("request", _quartet(report.exchange_ms), "sent to answered"),
        ("all stored", _seconds(report.stored_seconds), "after the last answer"),
        ("all paid", _seconds(report.paid_seconds), "after the last answer"),
        ("durability", report.durability, f"{report.connections} connections"),
        ("generator", f"{report.generator_cpu_us:,.0f} µs", "of CPU per request"),
        ("machine", f"{report.cores} cores", f"{report.cpu}, generator included"),
    ]


def _rate(per_second: float | None) -> str:
    return "not seen" if per_second is None else f"{per_second:,.0f}/s"


def _quartet(times: Milliseconds) -> str:
    return " / ".join(f"{ms:,.0f}" for ms in (times.p50, times.p95, times.p99, times.max))


def _seconds(seconds: float | None) -> str:
    return "not seen" if seconds is None else f"{seconds:.2f} s"


def _broken_rows(report: RushReport) -> list[tuple[str, str, str]]:
    return [("[bold red]BROKEN[/]", "", line) for line in report.broken]
