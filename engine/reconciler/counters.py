"""Checks the counters: those of Postgres against its orders and its ledger, then Redis against both."""

from typing import NamedTuple, cast

from engine.connections import redis_errors
from engine.core import Engine
from engine.inventory.inventory import Counters, StockSnapshot
from engine.keys import shard_keys
from engine.model import SaleState
from engine.reconciler.finding import Evidence
from engine.sales import Sale
from engine.store.database import Connection
from engine.store.evidence import (
    buyers_over_limit,
    counted_units,
    fetch_standing,
    guards_in_force,
    messages_in_motion,
)
from engine.store.rebuilding import fetch_counters


async def check_units(connection: Connection, sale_id: str) -> Evidence:
    """Invariants 1 and 11 within Postgres, of a sale or of the shop: of one snapshot."""
    evidence = Evidence()
    for row in await counted_units(connection, sale_id):
        at = f"{sale_id}/{row['sku']}"
        evidence.count(1, "SKUs", 1)
        evidence.count(1, "units stocked", row["stocked"])
        evidence.count(1, "ordered", row["ordered"])
        evidence.count(11, "ledger lines", row["lines"])
        if row["ordered"] > row["stocked"]:
            evidence.blame(1, f"{at}: {row['ordered']} ordered of {row['stocked']} stocked")
        for counter, units in (("ordered", row["live_units"]), ("sold", row["paid_units"])):
            if row[counter] != units:
                evidence.blame(1, f"{at}: {counter} says {row[counter]}, the orders {units}")
        for counter in ("stocked", "ordered", "sold"):
            if row[counter] != row[f"{counter}_lines"]:
                evidence.blame(
                    11, f"{at}: {counter} is {row[counter]}, its lines {row[f'{counter}_lines']}"
                )
    return evidence


async def check_counters(connection: Connection, sale: Sale) -> Evidence:
    """Invariants 1, 4 and 11 within Postgres: each from one snapshot, so no motion disturbs them."""
    evidence = await check_units(connection, sale.sale_id)
    for guard, in_force in (await guards_in_force(connection)).items():
        if not in_force:
            evidence.blame(11, f"the guard {guard} is not in force")
    over = await buyers_over_limit(connection, sale.sale_id, sale.per_user_max)
    for row in over:
        evidence.blame(
            4, f"{sale.sale_id}: a buyer has {row['units']} units of {sale.per_user_max} in orders"
        )
    return evidence


class _Look(NamedTuple):
    """Redis and Postgres side by side. `quiet`: nothing moved between them meanwhile."""

    snapshot: StockSnapshot
    counters: dict[str, Counters]  # as Postgres has them
    quiet: bool


async def compare_counters(engine: Engine, connection: Connection, sale_id: str) -> Evidence:
    """Invariants 1, 2 and 10 in Redis, and 2 across if nothing is on its way. Cheap; may be repeated."""
    evidence = Evidence()
    standing = await fetch_standing(connection, sale_id)
    look = await _look(engine, connection, sale_id)
    _check_epoch(sale_id, standing, look.snapshot, evidence)
    if not look.snapshot.stock:
        evidence.blame(2, f"{sale_id}: Redis holds no stock")
        return evidence
    _check_redis(sale_id, look, evidence)
    if look.quiet:
        _check_across(sale_id, look, evidence)
    else:
        evidence.count(2, "sales in motion", 1)
    return evidence


async def _look(engine: Engine, connection: Connection, sale_id: str) -> _Look:
    orders = shard_keys(sale_id).orders
    before = await engine.inventory.snapshot(sale_id)
    with redis_errors():
        entries = await engine.redis.xlen(orders)
    moving = await messages_in_motion(connection, sale_id)
    rows = await fetch_counters(connection, sale_id)
    after = await engine.inventory.snapshot(sale_id)
    counters = {
        row["sku"]: Counters(
            row["stocked"] - row["ordered"], row["ordered"] - row["sold"], row["sold"]
        )
        for row in rows
    }
    return _Look(after, counters, before == after and not entries and not moving)


def _check_epoch(
    sale_id: str, standing: dict[str, object], snapshot: StockSnapshot, evidence: Evidence
) -> None:
    evidence.count(10, "sales", 1)
    if standing["fenced"] is not None:
        evidence.blame(10, f"{sale_id} is shut until recovered: {standing['fenced']}")
    elif snapshot.state is SaleState.DRAINING:
        evidence.blame(10, f"{sale_id} is fenced in Redis, which Postgres does not know")
    if snapshot.epoch != standing["epoch"]:
        evidence.blame(
            10, f"{sale_id}: epoch {snapshot.epoch} in Redis, {standing['epoch']} in Postgres"
        )
    revision = snapshot.config.get("revision")
    if revision is not None and int(revision) != cast("int", standing["revision"]):
        evidence.blame(10, f"{sale_id}: Redis lacks the newest settings")


def _check_redis(sale_id: str, look: _Look, evidence: Evidence) -> None:
    for sku, wanted in look.counters.items():
        at = f"{sale_id}/{sku}"
        held = look.snapshot.stock.get(sku)
        if held is None:
            evidence.blame(2, f"{at}: Redis does not know the SKU")
            continue
        evidence.count(2, "SKUs", 1)
        evidence.count(2, "units in Redis", held.stocked)
        if held.reserved + held.sold > wanted.stocked or min(held) < 0:
            evidence.blame(1, f"{at}: Redis has {_shown(held)} of {wanted.stocked} stocked")
        if held.stocked != wanted.stocked:
            evidence.blame(
                2, f"{at}: Redis has {_shown(held)}, together not the {wanted.stocked} stocked"
            )


def _check_across(sale_id: str, look: _Look, evidence: Evidence) -> None:
    evidence.count(2, "sales equal in Redis and Postgres", 1)
    for sku, wanted in look.counters.items():
        held = look.snapshot.stock.get(sku)
        if held is not None and held.stocked == wanted.stocked and held != wanted:
            evidence.blame(
                2, f"{sale_id}/{sku}: Redis has {_shown(held)}, Postgres {_shown(wanted)}"
            )


def _shown(counters: Counters) -> str:
    return f"{counters.available} available, {counters.reserved} reserved, {counters.sold} sold"
