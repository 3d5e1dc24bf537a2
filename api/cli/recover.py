"""`doorbuster recover`: rebuilds a sale in Redis from Postgres and what is left of its stream."""

from typing import Annotated

import typer

from api.cli.progress import shown_progress
from api.cli.running import on_engine
from engine.core import Engine
from engine.recovery import RecoveryReport, recover

HELP = """
Rebuild a sale in Redis behind its fence, and open it again. Safe to kill and to repeat.

The engine shuts a sale by itself when Redis has lost data; `doorbuster check` says so. Recovery
raises the epoch, so that nothing of the lost generation counts any more, drains what is left of
the stream, and sets the counters to what Postgres knows.

* `doorbuster recover double-11` rebuilds one sale
* `doorbuster recover` rebuilds every sale that is shut
"""

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command("recover", help=HELP)
def command(
    sale_ids: Annotated[
        list[str] | None,
        typer.Argument(help="Sales to rebuild; none: all that are shut.", metavar="[SALE]..."),
    ] = None,
) -> None:
    reports = on_engine(lambda engine: _recover_all(engine, sale_ids or []))
    for report in reports:
        print(
            f"Sale {report.sale_id} is rebuilt at epoch {report.epoch}: {report.orders:,} orders of "
            f"{report.buyers:,} buyers, {report.drained_entries:,} stream entries drained, "
            f"{report.rescued:,} reservations rescued."
        )
    if not reports:
        print("No sale is shut; nothing to recover.")


async def _recover_all(engine: Engine, sale_ids: list[str]) -> list[RecoveryReport]:
    wanted = sale_ids or [sale.sale_id for sale in await engine.sales.standings() if sale.fenced]
    reports = []
    for sale_id in wanted:
        with shown_progress(sale_id) as progress:
            reports.append(await recover(engine, sale_id, progress))
    return reports
