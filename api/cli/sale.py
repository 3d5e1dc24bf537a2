"""`doorbuster sale`: what operators do to sales, straight on the engine's servers."""

import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from api.cli.running import actor, on_engine
from api.cli.sale_tables import detail_of, table_of
from engine.clock import SystemClock
from engine.core import Engine
from engine.errors import DoorbusterError, Invalid, Unavailable
from engine.inventory import StockSnapshot
from engine.launching import launch_sale
from engine.sales import Sale, SaleControl, SalePhase, parse_sale_document

HELP = """
Create, watch and steer sales on the running engine.

* `doorbuster sale create --file sale.json` checks the whole document before anything is done
* `doorbuster sale open double-11 --now` lets buyers in at once
* `doorbuster sale restock double-11 phone-black 500 --key delivery-17` adds 500 units, once
* `doorbuster sale pause double-11` and `resume` stop and go on
"""

app = typer.Typer(
    help=HELP, rich_markup_mode="markdown", no_args_is_help=True, add_completion=False
)

SaleId = Annotated[str, typer.Argument(help="The sale's id.", metavar="SALE")]


@app.command()
def create(
    file: Annotated[Path, typer.Option(help="The sale document, JSON; - reads from stdin.")],
) -> None:
    """Make a sale from a document and put its stock up. It sells by itself within its window."""
    document = parse_sale_document(_read(file))
    sale = on_engine(lambda engine: launch_sale(engine, document, actor()))
    print(f"Sale {sale.sale_id} is created.")


@app.command()
def show(sale_id: SaleId) -> None:
    """Show a sale: its settings, and per SKU what is available, reserved and sold."""
    Console().print(on_engine(lambda engine: _detail(engine, sale_id)))


@app.command("list")
def list_sales() -> None:
    """List all sales, newest window first."""
    Console().print(on_engine(_table))


@app.command("open")
def open_sale(
    sale_id: SaleId,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for opens_at: move it to this moment.")
    ] = False,
) -> None:
    """Let buyers in within the window; also after `pause` or `close`."""
    sale = on_engine(lambda engine: engine.sales.open(sale_id, actor(), now=now))
    waits = sale.phase(SystemClock().now_ms()) == SalePhase.SCHEDULED
    print(f"Sale {sale_id} {f'opens at {sale.opens_at.isoformat()}' if waits else 'is open'}.")


@app.command()
def pause(sale_id: SaleId) -> None:
    """Let nobody in until `resume`. What is reserved stays reserved."""
    _steer(lambda sales: sales.pause(sale_id, actor()), "is paused")


@app.command()
def resume(sale_id: SaleId) -> None:
    """Go on after `pause`."""
    _steer(lambda sales: sales.resume(sale_id, actor()), "goes on")


@app.command()
def close(sale_id: SaleId) -> None:
    """End the sale before its time. Reservations and orders stay."""
    _steer(lambda sales: sales.close(sale_id, actor()), "is closed")


@app.command()
def extend(
    sale_id: SaleId,
    closes_at: Annotated[
        str, typer.Option(help="The new end, RFC 3339, as 2026-11-12T02:00:00+08:00.")
    ],
) -> None:
    """Move the end of the sale to a later time."""
    end = _time(closes_at)
    _steer(lambda sales: sales.extend(sale_id, end, actor()), f"ends at {end.isoformat()}")


@app.command()
def restock(
    sale_id: SaleId,
    sku: Annotated[str, typer.Argument(help="Of which SKU.", metavar="SKU")],
    units: Annotated[int, typer.Argument(help="How many units more.", metavar="UNITS", min=1)],
    key: Annotated[
        str | None, typer.Option(help="Your name for this restock: repeating it adds nothing.")
    ] = None,
) -> None:
    """Put more units of a SKU up for sale."""
    _steer(
        lambda sales: sales.restock(sale_id, sku, units, actor(), key),
        f"has {units:,} more units of {sku}",
    )


def _steer(action: Callable[[SaleControl], Coroutine[Any, Any, Sale]], happened: str) -> None:
    sale = on_engine(lambda engine: action(engine.sales))
    print(f"Sale {sale.sale_id} {happened}.")


async def _detail(engine: Engine, sale_id: str) -> object:
    sale = await engine.sales.get(sale_id)
    return detail_of(sale, await _snapshot(engine, sale), engine.clock.now_ms())


async def _table(engine: Engine) -> object:
    sales = await engine.sales.list()
    snapshots = [await _snapshot(engine, sale) for sale in sales]
    return table_of(list(zip(sales, snapshots, strict=True)), engine.clock.now_ms())


async def _snapshot(engine: Engine, sale: Sale) -> StockSnapshot | None:
    """The live counters; None where Redis does not tell."""
    try:
        return await engine.live_stock.get(sale.sale_id)
    except Unavailable:
        return None


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise DoorbusterError(f"{file} cannot be read: {error.strerror}.") from error


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid("closes_at", "must be a time as 2026-11-12T02:00:00+08:00") from None
    if time.tzinfo is None:
        raise Invalid("closes_at", "needs an offset, as +08:00 or Z")
    return time
