"""`doorbuster reconcile`: a provider's statement of a day against the payments here."""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.cli.running import actor, on_engine
from api.http_client import AioHttpClient
from api.reconciliation.compare import Difference
from api.reconciliation.reconciler import CONNECTIONS_MAX, DOWNLOAD_SECONDS_MAX, settle_day
from api.reconciliation.statements import READERS, read_statement
from api.reconciliation.store import Reconciliations
from engine.core import Engine
from engine.errors import DoorbusterError, Invalid
from engine.payment.provider import StatementLine
from engine.payment.providers import plain_providers

SHOWN_MAX = 200  # Rows of the table; all of them are kept.

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command()
def reconcile(
    provider: Annotated[str, typer.Option(help=f"One of {', '.join(sorted(READERS))}.")],
    day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="At the provider.")],
    file: Annotated[
        Path | None, typer.Option(help="The statement, downloaded before.", exists=True)
    ] = None,
) -> None:
    """Compare what a provider booked on a day with the payments here; list what differs.

    * `doorbuster reconcile --provider alipay --day 2026-11-11` asks the provider
    * `--file bill.csv` reads its statement: Alipay's zip or CSV, WeChat's gzip or CSV, Stripe's JSON

    The worker does it every day by itself. Exits with 1 where something differs.
    """
    data = None if file is None else file.read_bytes()
    found = on_engine(lambda engine: _reconcile(engine, provider, day.date(), data))
    if found:
        Console().print(_table(found))
        raise typer.Exit(1)
    print(f"{provider} and the payments of {day:%Y-%m-%d} here agree.")


async def _reconcile(
    engine: Engine, provider: str, day: date, data: bytes | None
) -> list[Difference]:
    if provider not in READERS:
        raise Invalid("provider", f"must be one of {', '.join(sorted(READERS))}")
    book = Reconciliations(engine.pool)
    wanted = await book.want(provider, day, actor(), taken=True)
    try:
        lines = await _statement(engine, provider, day, data)
    except DoorbusterError as error:
        await book.fail(wanted, str(error), for_good=True)
        raise
    return await settle_day(book, wanted, lines)


async def _statement(
    engine: Engine, provider: str, day: date, data: bytes | None
) -> Sequence[StatementLine]:
    if data is not None:
        return read_statement(provider, data)
    async with AioHttpClient(
        connections_max=CONNECTIONS_MAX, timeout_seconds=DOWNLOAD_SECONDS_MAX
    ) as http:
        known = plain_providers(engine.settings, http, engine.clock)
        if provider not in known:
            raise Invalid("provider", f"{provider} is not configured here; name its file")
        return await known[provider].statement(day)


def _table(found: Sequence[Difference]) -> Table:
    table = Table(box=None, pad_edge=False, caption=_more(len(found)))
    for title in ("difference", "payment", "at the provider", "here", "there"):
        table.add_column(title, overflow="fold")
    for one in found[:SHOWN_MAX]:
        ours, theirs = one.ours or {}, one.theirs or {}
        table.add_row(
            one.kind.value,
            Text(one.payment_id),
            Text(one.provider_ref or ""),
            _money(ours, ours.get("status")),
            _money(theirs, theirs.get("kind")),
        )
    return table


def _money(side: dict[str, object], word: object) -> str:
    if not side:
        return "—"
    return f"{word} {side['amount_minor']} {side['currency']}"


def _more(count: int) -> str | None:
    return f"and {count - SHOWN_MAX} more" if count > SHOWN_MAX else None
