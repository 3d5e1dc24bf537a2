"""`doorbuster rush`: sends a flash crowd against the running engine and proves what came of it."""

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.minting import mint
from api.cli.progress import shown_progress
from api.cli.running import on_engine
from api.cli.rush_orders import count_units, crowd_name, missing_orders
from api.cli.rush_report import (
    MISSING_SHOWN_MAX,
    RushReport,
    as_table,
    cores,
    cpu_model,
    summarize,
)
from api.cli.rush_sale import draw_up, public_url, put_up
from api.cli.rush_wait import StoreWatch, Wait
from engine.clock import SystemClock
from engine.config import Settings
from engine.core import Engine
from engine.errors import Conflict, DoorbusterError, UnknownSale
from engine.reconciler import Finding, check
from engine.sales import Sale, SalePhase
from loadtest.crowd import CrowdFailed, CrowdSettings
from loadtest.generators import Generators
from loadtest.plan import Click, PlanSettings, draw_plan
from loadtest.tally import ACCEPTED, CrowdReport

BUYERS_MAX: Final = 2_000_000  # Plan, tokens and answers are kept in memory: about 1.6 KB each.
CONNECTIONS_MAX: Final = 4096  # What a front takes from one address by default.
PROGRESS_SECONDS: Final = 0.25
GENERATORS_MAX: Final = 64
UNITS_MAX: Final = 10_000_000
SALE_DEFAULT: Final = "demo"
SEED_BITS: Final = 32

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


class RushOptions(msgspec.Struct, frozen=True):
    """What the command line asked for."""

    sale_id: str | None  # None: a sale of its own, of `units`
    units: int | None
    paid: bool  # whether a sale of its own is paid by itself
    buyers: int
    rate: float | None
    seed: int
    connections: int
    generators: int
    duplicates: float
    retries: float
    crowd_seconds_max: float
    wait_seconds_max: float


SaleOption = Annotated[str | None, typer.Option(help="The sale to buy from; demo if not given.")]
UnitsOption = Annotated[
    int | None,
    typer.Option(min=1, max=UNITS_MAX, help="Make a fresh sale of so many units for this."),
]
PaidOption = Annotated[
    bool, typer.Option("--paid", help="With --units: orders are paid by themselves.")
]
BuyersOption = Annotated[int, typer.Option(min=1, max=BUYERS_MAX, help="Distinct buyers.")]
RateOption = Annotated[
    float | None, typer.Option(min=1, help="Buyers per second, kept whatever the answers.")
]
BurstOption = Annotated[bool, typer.Option("--burst", help="All at once. The default.")]
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="Replays the same crowd; random if not given.")
]
ConnectionsOption = Annotated[
    int, typer.Option(min=1, max=CONNECTIONS_MAX, help="Open connections.")
]
GeneratorsOption = Annotated[
    int, typer.Option(min=1, max=GENERATORS_MAX, help="Processes that make the crowd.")
]
DuplicatesOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of buyers who click twice at once.")
]
RetriesOption = Annotated[
    float, typer.Option(min=0, max=1, help="Share of buyers who ask again later.")
]
SecondsOption = Annotated[float, typer.Option(min=1, help="The crowd goes home after this.")]
WaitOption = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for orders and payments; 0: none.")
]
JsonFileOption = Annotated[
    Path | None, typer.Option("--json", help="Also writes the report to this file.")
]


@app.command()
def rush(
    *,
    sale: SaleOption = None,
    units: UnitsOption = None,
    paid: PaidOption = False,
    buyers: BuyersOption = 10_000,
    rate: RateOption = None,
    burst: BurstOption = False,
    seed: SeedOption = None,
    connections: ConnectionsOption = 256,
    generators: GeneratorsOption = 1,
    duplicates: DuplicatesOption = 0.05,
    retries: RetriesOption = 0.05,
    seconds: SecondsOption = 120,
    wait: WaitOption = 120,
    json_file: JsonFileOption = None,
) -> None:
    """Sends a flash crowd against the running engine, then proves what came of it.

    Every buyer has a token of their own and wants one unit, or two, or a small cart; some click
    twice, some ask again, and all repeat what was shed or lost, with the same key. Latency counts
    from the moment a buyer meant to click. Afterwards every acknowledged reservation is looked up
    in Postgres and all invariants are checked; the exit code is 1 if one does not hold.

    * `doorbuster rush --buyers 50000` storms the demo sale, which has 10,000 units
    * `doorbuster rush --units 300000 --buyers 200000` makes a sale in which everybody gets what
      they want, and says how many orders per second were accepted and stored
    """
    _refuse(burst and rate is not None, "choose one of --rate and --burst")
    _refuse(units is not None and sale is not None, "choose one of --sale and --units")
    _refuse(paid and units is None, "--paid goes with --units")
    options = RushOptions(
        sale_id=sale or (None if units else SALE_DEFAULT),
        units=units,
        paid=paid,
        buyers=buyers,
        rate=rate,
        seed=secrets.randbits(SEED_BITS) if seed is None else seed,
        connections=connections,
        generators=generators,
        duplicates=duplicates,
        retries=retries,
        crowd_seconds_max=seconds,
        wait_seconds_max=wait,
    )
    console = Console()
    report, findings = on_engine(lambda engine: run_rush(engine, options, console))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    _conclude(console, report, findings)


def _conclude(console: Console, report: RushReport, findings: Sequence[Finding]) -> None:
    """Shows the report and the proof. Raises Exit where it is none."""
    console.print(as_table(report))
    for finding in findings:
        console.print(finding.line, markup=False, highlight=False, soft_wrap=True)
    if not report.holds:
        raise typer.Exit(1)
    console.print("[bold green]Every acknowledged reservation is an order; all invariants hold.[/]")


def _refuse(wrong: bool, why: str) -> None:
    if wrong:
        raise typer.BadParameter(why)


async def run_rush(
    engine: Engine, options: RushOptions, console: Console
) -> tuple[RushReport, list[Finding]]:
    """The whole rush against a running engine. Raises DoorbusterError in one sentence."""
    sale = await _open_sale(engine, options.sale_id or await _own_sale(engine, options))
    console.print(
        f"Crowd of {options.buyers:,} for {sale.sale_id}: --seed {options.seed} repeats it."
    )
    crowd = _gather(engine.settings, options, sale)
    watch = StoreWatch(engine.pool, sale.sale_id)
    watching = asyncio.create_task(watch.run())
    wait = Wait(watch, engine.pool, sale, crowd_name(options.seed), options.wait_seconds_max)
    try:
        with _progress(console) as progress:
            crowd_report = await _run_crowd(crowd, progress)
            acknowledged = len(crowd_report.tally.acknowledged)
            await wait.run(progress, acknowledged, crowd_report.last_answer_s)
    finally:
        watching.cancel()
    with shown_progress("check") as shown:
        findings = await check(engine, [sale.sale_id], shown)
    return await _report(engine, options, crowd_report, wait, findings), findings


async def _own_sale(engine: Engine, options: RushOptions) -> str:
    assert options.units is not None
    document = draw_up("rush", options.units, auto_capture=options.paid)
    await put_up(engine.settings, document)
    return document.sale_id


async def _open_sale(engine: Engine, sale_id: str) -> Sale:
    sale = await engine.directory.get(sale_id)
    if sale is None:
        raise UnknownSale(f"There is no sale {sale_id}: `doorbuster sale list` shows all.")
    phase = sale.phase(engine.clock.now_ms())
    if phase is not SalePhase.OPEN:
        raise Conflict("not_open", f"Sale {sale_id} is {phase}, so nobody can buy.")
    if sale.room is not None and sale.room.on:
        raise Conflict(
            "room_on",
            f"Sale {sale_id} has its waiting room on, and a rush goes straight to the counter: `make "
            f"load ROOM=1` shops through one; `doorbuster admission set {sale_id} --off` ends it.",
        )
    return sale


def _gather(settings: Settings, options: RushOptions, sale: Sale) -> Generators:
    clicks: list[Click] = draw_plan(
        PlanSettings(
            buyers=options.buyers,
            seed=options.seed,
            units={item.sku: item.units for item in sale.items},
            rate=options.rate,
            per_user_max=sale.per_user_max,
            duplicates=options.duplicates,
            retries=options.retries,
        )
    )
    assert settings.secret is not None
    crowd = crowd_name(options.seed)
    user_ids = (f"{crowd}{number}" for number in range(options.buyers))
    try:
        return Generators(
            CrowdSettings(
                url=public_url(settings),
                sale_id=sale.sale_id,
                connections_max=options.connections,
                seconds_max=options.crowd_seconds_max,
                seed=options.seed,
            ),
            clicks,
            list(mint(settings.secret, SystemClock(), user_ids)),
            options.generators,
        )
    except CrowdFailed as error:
        raise DoorbusterError(str(error)) from error


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}"),
        console=console,
        auto_refresh=False,  # Its thread would take turns with the crowd.
    )


async def _run_crowd(crowd: Generators, progress: Progress) -> CrowdReport:
    task = progress.add_task("crowd", total=crowd.clicks_total, told="")
    running = asyncio.create_task(crowd.run())
    try:
        while not running.done():
            await asyncio.wait({running}, timeout=PROGRESS_SECONDS)
            standing = crowd.standing
            told = f"accepted {standing.accepted:,}"
            progress.update(task, completed=standing.settled, told=told, refresh=True)
        report = running.result()
        told = f"accepted {report.tally.outcomes[ACCEPTED]:,}"
        progress.update(task, completed=report.tally.settled, told=told, refresh=True)
        return report
    except CrowdFailed as error:
        raise DoorbusterError(str(error)) from error
    finally:
        running.cancel()


async def _report(
    engine: Engine,
    options: RushOptions,
    crowd: CrowdReport,
    wait: Wait,
    findings: Sequence[Finding],
) -> RushReport:
    tally = crowd.tally
    latency_ms, accepted_ms, exchange_ms = summarize(crowd)
    return RushReport(
        sale_id=wait.sale.sale_id,
        seed=options.seed,
        buyers=options.buyers,
        rate=options.rate,
        connections=options.connections,
        generators=options.generators,
        durability=engine.settings.durability.value,
        cores=cores(),
        cpu=cpu_model(),
        clicks=crowd.clicks,
        outcomes=dict(tally.outcomes),
        http_requests=tally.requests,
        disconnects=tally.disconnects,
        timeouts=tally.timeouts,
        crowd_seconds=round(crowd.seconds, 3),
        requests_per_second=round(crowd.requests_per_second, 1),
        accepted_per_second=_rounded(crowd.accepted_per_second),
        stored_per_second=_stored_per_second(crowd, wait),
        generator_cpu_us=round(crowd.cpu_seconds / max(1, tally.requests) * 1_000_000, 1),
        busiest_second=max(tally.answers_of_second.values(), default=0),
        latency_ms=latency_ms,
        accepted_ms=accepted_ms,
        exchange_ms=exchange_ms,
        acknowledged=len(tally.acknowledged),
        orders=wait.orders,
        units=await count_units(engine.pool, wait.sale.sale_id),
        stored_seconds=wait.stored_seconds,
        paid_seconds=wait.paid_seconds,
        broken=[
            *tally.broken,
            *await _lost_promises(engine, options, tally.acknowledged),
            *(finding.line for finding in findings if not finding.ok),
        ],
    )


def _stored_per_second(crowd: CrowdReport, wait: Wait) -> float | None:
    """From the first acceptance until the last order was seen in Postgres."""
    first_s, stored_s = crowd.tally.first_accepted_s, wait.stored_at_s
    if first_s is None or stored_s is None or stored_s <= first_s:
        return None
    return _rounded(len(crowd.tally.created) / (stored_s - first_s))


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 1)


async def _lost_promises(engine: Engine, options: RushOptions, acknowledged: set[str]) -> list[str]:
    if not options.wait_seconds_max:
        return []  # They may still be on their way; the check looks into the stream.
    missing = await missing_orders(engine.pool, acknowledged)
    if not missing:
        return []
    shown = ", ".join(missing[:MISSING_SHOWN_MAX])
    return [f"{len(missing):,} acknowledged reservations are no orders: {shown}"]
