"""Shows sales as tables on a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group
from rich.table import Table
from rich.text import Text

from engine.inventory import StockSnapshot
from engine.inventory.inventory import Counters
from engine.model import SaleState
from engine.sales import Money, Sale

UNKNOWN = "?"  # Redis did not tell.
# Currencies whose minor unit is not a hundredth (ISO 4217).
MINOR_DIGITS = {
    **dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


def table_of(sales: Sequence[tuple[Sale, StockSnapshot | None]], now_ms: int) -> Table:
    """One line per sale."""
    table = Table(box=None, pad_edge=False)
    for title in ("sale", "state", "opens", "closes"):
        table.add_column(title, no_wrap=True, overflow="ignore")
    for title in ("SKUs", "stocked", "available", "reserved", "sold"):
        table.add_column(title, justify="right")
    for sale, snapshot in sales:
        table.add_row(
            sale.sale_id,
            _phase(sale, snapshot, now_ms),
            _time(sale.opens_at),
            _time(sale.closes_at),
            str(len(sale.items)),
            f"{sum(item.units for item in sale.items):,}",
            *_counts(list(snapshot.stock.values()) if snapshot else None),
        )
    return table


def detail_of(sale: Sale, snapshot: StockSnapshot | None, now_ms: int) -> Group:
    """A sale's settings, and one line per SKU."""
    facts = {
        "state": _phase(sale, snapshot, now_ms),
        "fenced": sale.fenced,
        "window": f"{_time(sale.opens_at)} to {_time(sale.closes_at)}",
        "per user": f"at most {sale.per_user_max}",
        "reserved for": f"{sale.reservation_seconds} s",
        "paid for": "by itself" if sale.auto_capture else "by the buyer",
        "epoch": f"{sale.epoch}, revision {sale.revision}",
    }
    lines = [f"{name:<13} {fact}" for name, fact in facts.items() if fact is not None]
    title = f"{sale.sale_id}: {' / '.join(sale.name.values())}"
    return Group(Text(title), Text("\n".join(lines)), Text(), _items(sale, snapshot))


def _items(sale: Sale, snapshot: StockSnapshot | None) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("SKU")
    table.add_column("name")
    for title in ("price", "stocked", "available", "reserved", "sold"):
        table.add_column(title, justify="right")
    for item in sale.items:
        counters = snapshot.stock.get(item.sku) if snapshot else None
        table.add_row(
            item.sku,
            Text(" / ".join(item.name.values())),
            price_text(item.price),
            f"{item.units:,}",
            *_counts([counters] if counters else None),
        )
    return table


def price_text(price: Money) -> str:
    """As people write it: 1,299.00 CNY for 129900 fen."""
    digits = MINOR_DIGITS.get(price.currency, 2)
    return f"{price.amount_minor / 10**digits:,.{digits}f} {price.currency}"


def _phase(sale: Sale, snapshot: StockSnapshot | None, now_ms: int) -> str:
    fenced = snapshot is not None and snapshot.state is SaleState.DRAINING
    return str(sale.phase(now_ms, fenced_in_redis=fenced))


def _counts(counters: Sequence[Counters] | None) -> tuple[str, str, str]:
    if counters is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    sums = (
        sum(counter.available for counter in counters),
        sum(counter.reserved for counter in counters),
        sum(counter.sold for counter in counters),
    )
    available, reserved, sold = (f"{units:,}" for units in sums)
    return available, reserved, sold


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}Z"
