"""One step of a measurement: a sale of its own, an offer, the bill for it, and the proof afterwards.

The bill is CPU time by hop. Front and Redis are billed for the measured seconds, the worker and
Postgres until everything is stored.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from benchmarks.capacity.load import Offer, Target, as_figures, send
from benchmarks.capacity.stand import Stand
from benchmarks.capacity.usage import machine_busy_seconds, resident_bytes
from benchmarks.figures import Figure, exactly
from engine.core import Engine
from engine.keys import shard_keys
from engine.model import Money
from engine.reconciler import check
from engine.sales import SaleDocument, SaleItem

UNITS: Final = 1_000_000_000
SKU: Final = "phone-black"
BODY: Final = '{"items":[{"sku":"phone-black","quantity":1}]}'
STORED_SECONDS_MAX: Final = (
    60.0  # A worker that is behind catches up within it, or the step says so.
)
POLL_SECONDS: Final = 0.05
MIB: Final = 2**20

_numbers = itertools.count(1)


@dataclass
class Bill:
    """CPU seconds by hop, and the front's memory, over one step."""

    stand: Stand
    marks: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=list)
    front_bytes_max: int = 0

    def mark(self) -> None:
        self.marks.append((time.monotonic(), self.stand.cpu()))
        self.busy_s.append(machine_busy_seconds())

    def look_at_memory(self) -> None:
        held = sum(resident_bytes(pid) for pid in self.stand.hops["front"])
        self.front_bytes_max = max(self.front_bytes_max, held)

    def between(self, first: int, last: int) -> dict[str, float]:
        """CPU seconds by hop from one mark to another."""
        before, after = self.marks[first][1], self.marks[last][1]
        return {name: after[name] - before[name] for name in before}

    def others_share(self, generator_cores: float) -> float:
        """How much of all cores programs took, in the measured seconds, that are none of ours."""
        ours = sum(self.between(1, 2).values()) + generator_cores * self.seconds(1, 2)
        all_cores = self.seconds(1, 2) * (os.cpu_count() or 1)
        return max(0.0, (self.busy_s[2] - self.busy_s[1] - ours) / all_cores)

    def seconds(self, first: int, last: int) -> float:
        return self.marks[last][0] - self.marks[first][0]


async def run_step(stand: Stand, engine: Engine, offer: Offer) -> dict[str, Any]:
    """The step's figures, ready for JSON."""
    sale_id = f"step-{next(_numbers)}"
    await engine.sales.create(make_document(sale_id), "benchmark")
    bill = Bill(stand)
    bill.mark()
    watching = asyncio.create_task(_watch(bill.look_at_memory))
    try:
        results = await send(target(stand, sale_id), offer, bill.mark, bill.mark)
        stored_after_s = await until_stored(engine, sale_id)
    finally:
        watching.cancel()
    bill.mark()
    figures = as_figures(results, offer.seconds)
    return {
        "sale_id": sale_id,
        **figures,
        **_costs(bill, figures),
        "others_share": round(bill.others_share(figures["generator"]["cpu_cores"]), 3),
        "front_rss_max_mib": round(bill.front_bytes_max / MIB, 1),
        "stored_after_s": stored_after_s,
        "invariants": await prove(engine, [sale_id]),
    }


def target(stand: Stand, sale_id: str) -> Target:
    return Target(
        host=stand.settings.host,
        port=stand.port,
        path=f"/v1/sales/{sale_id}/reservations",
        body=BODY,
        tokens_file=stand.tokens_file,
        key=sale_id,
        cores=stand.generator_cores,
    )


def _costs(bill: Bill, figures: dict[str, Any]) -> dict[str, Any]:
    window, whole = bill.between(1, 2), bill.between(0, 3)
    seconds = bill.seconds(1, 2)
    in_window = figures["accepted_per_s"] * seconds
    per_hop = {
        "front": _per(window["front"], in_window),
        "redis": _per(window["redis"], in_window),
        "worker": _per(whole["worker"], figures["accepted"]),
        "postgres": _per(whole["postgres"], figures["accepted"]),
    }
    return {
        "cpu_us": per_hop,
        "utilisation": {name: round(used / seconds, 3) for name, used in window.items()},
    }


def _per(cpu_s: float, count: float) -> float | None:
    return round(cpu_s / count * 1e6, 2) if count else None


async def _watch(look: Callable[[], None]) -> None:
    while True:
        look()
        await asyncio.sleep(POLL_SECONDS)


async def until_stored(engine: Engine, sale_id: str) -> float | None:
    """Seconds until every reservation is an order; None if patience ended first."""
    began = time.monotonic()
    stream = shard_keys(sale_id).orders
    while await engine.redis.xlen(stream):
        if time.monotonic() - began > STORED_SECONDS_MAX:
            return None
        await asyncio.sleep(POLL_SECONDS)
    return round(time.monotonic() - began, 2)


async def prove(engine: Engine, sale_ids: list[str]) -> dict[str, Any]:
    """What `doorbuster check` says of these sales."""
    findings = await check(engine, sale_ids)
    return {
        "checked": len(findings),
        "hold": sum(finding.ok for finding in findings),
        "broken": [finding.line for finding in findings if not finding.ok],
    }


def intact(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """How many steps left every invariant intact: all of them, or the figures are worth nothing."""
    proofs = [step["invariants"] for step in steps]
    whole = sum(proof["hold"] == proof["checked"] for proof in proofs)
    return exactly("steps with every invariant intact", whole, "steps", len(proofs))


def make_document(sale_id: str) -> SaleDocument:
    now = datetime.now(UTC)
    return SaleDocument(
        sale_id=sale_id,
        name={"en": "Capacity"},
        opens_at=now - timedelta(minutes=1),
        closes_at=now + timedelta(days=1),
        per_user_max=10_000,
        reservation_seconds=3600,
        items=(SaleItem(SKU, {"en": "Phone, black"}, UNITS, Money(129900, "CNY")),),
        auto_capture=False,
    )
