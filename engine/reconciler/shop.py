"""Proves of what is sold outside of sales, and of checkouts, what Postgres alone can tell."""

from typing import Final

from engine.model import SHOP
from engine.reconciler.counters import check_units
from engine.reconciler.finding import Evidence
from engine.store.database import Connection
from engine.store.evidence import checkout_figures

CHECKOUT_SECONDS_MAX: Final = 300.0  # One that was cut short is looked at after a minute.


async def check_shop(connection: Connection) -> Evidence:
    """Invariants 1, 3, 6 and 11, each from one snapshot. Cheap; may be repeated."""
    evidence = await check_units(connection, SHOP)
    figures = await checkout_figures(connection, CHECKOUT_SECONDS_MAX)
    if under_way := figures["under_way"]:
        evidence.count(3, "checkouts under way", under_way)
    for invariant, figure, problem in (
        (3, "stuck", "checkouts became neither an order nor nothing"),
        (3, "orderless", "checkouts of the shop have no order"),
        (6, "mispriced", "orders were paid at other terms than their checkouts'"),
    ):
        if times := figures[figure]:
            evidence.blame(invariant, f"{times} {problem}", times=times)
    return evidence
