"""What the stock should be: the scripts' rules in plain Python, one dictionary at a time.

Written from the invariants and not from the Lua, so that the two can disagree.
"""

from dataclasses import dataclass, field

from engine.inventory.inventory import SaleSettings
from engine.model import RESERVATIONS_PER_BUYER_MAX, ReserveRequest, SaleState

Items = dict[str, int]
HELD = ("reserved", "confirmed")


@dataclass
class Held:
    """One reservation of one buyer."""

    items: Items
    until_ms: int
    state: str = "reserved"

    @property
    def units(self) -> int:
        return sum(self.items.values())


@dataclass
class ShelfModel:
    """One sale. `reservations` is all there is: available, reserved and sold follow from it."""

    settings: SaleSettings
    epoch: int
    stocked: dict[str, int]
    reservations: dict[str, dict[str, Held]] = field(default_factory=dict)  # user → id → it
    streamed: list[tuple[str, str, Items]] = field(default_factory=list)

    def counters(self, sku: str) -> tuple[int, int, int]:
        """(available, reserved, sold)"""
        taken = {"reserved": 0, "confirmed": 0}
        for held in self._all():
            if held.state in taken:
                taken[held.state] += held.items.get(sku, 0)
        available = self.stocked[sku] - sum(taken.values())
        return available, taken["reserved"], taken["confirmed"]

    def units_of(self, user: str) -> int:
        mine = self.reservations.get(user, {}).values()
        return sum(held.units for held in mine if held.state in HELD)

    def reserve(self, request: ReserveRequest, now_ms: int) -> str:
        """The word, and for a replay the state and deadline it has to tell."""
        items = parse(request.items_text)
        known = self.reservations.get(request.user_id, {}).get(request.reservation_id)
        if known is not None:
            same = known.items == items
            return f"DUPLICATE {known.state} {known.until_ms}" if same else "MISMATCH"
        refusal = self._shut(now_ms) or self._refusal(request.user_id, items)
        if refusal is not None:
            return refusal
        # Deadlines are whole seconds, never earlier than promised.
        until_ms = -(-now_ms // 1000) * 1000 + self.settings.reservation_seconds * 1000
        mine = self.reservations.setdefault(request.user_id, {})
        mine[request.reservation_id] = Held(items, until_ms)
        self.streamed.append((request.user_id, request.reservation_id, items))
        return f"RESERVED {until_ms}"

    def confirm(self, user: str, reservation_id: str) -> str:
        held = self.reservations.get(user, {}).get(reservation_id)
        if held is None:
            return "NOT_FOUND"
        if held.state != "reserved":
            return "ALREADY_RESOLVED"
        held.state = "confirmed"
        return "CONFIRMED"

    def release(self, user: str, reservation_id: str, reason: str) -> str:
        held = self.reservations.get(user, {}).get(reservation_id)
        if held is None:
            return "NOT_FOUND"
        if held.state == "reserved" or (held.state == "confirmed" and reason == "refunded"):
            held.state = "expired" if reason == "expired" else "released"
            return "RELEASED"
        return "ALREADY_RESOLVED"

    def rereserve(self, user: str, reservation_id: str) -> str:
        held = self.reservations.get(user, {}).get(reservation_id)
        if held is None:
            return "NOT_FOUND"
        if held.state in {"confirmed", "released"}:
            return "ALREADY_CONFIRMED" if held.state == "confirmed" else "RELEASED"
        if held.state == "expired":
            if self.units_of(user) + held.units > self.settings.per_user_max:
                return "LIMIT_REACHED"
            if any(self.counters(sku)[0] < wanted for sku, wanted in held.items.items()):
                return "SOLD_OUT"
        held.state = "confirmed"
        return "RERESERVED"

    def restock(self, sku: str, stocked: int) -> str:
        if sku not in self.stocked:
            return "UNKNOWN_SKU"
        if stocked <= self.stocked[sku]:
            return "UNCHANGED"
        self.stocked[sku] = stocked
        return "RESTOCKED"

    def configure(self, settings: SaleSettings) -> str:
        if settings.revision <= self.settings.revision:
            return "UNCHANGED"
        self.settings = settings
        return "CONFIGURED"

    def _all(self) -> list[Held]:
        return [held for mine in self.reservations.values() for held in mine.values()]

    def _shut(self, now_ms: int) -> str | None:
        settings = self.settings
        if settings.state is SaleState.CLOSED or now_ms >= settings.closes_at_ms:
            return "ENDED"
        if now_ms < settings.opens_at_ms:
            return "NOT_STARTED"
        return "PAUSED" if settings.state is SaleState.PAUSED else None

    def _refusal(self, user: str, items: Items) -> str | None:
        if any(sku not in self.stocked for sku in items):
            return "UNKNOWN_SKU"
        too_many = self.units_of(user) + sum(items.values()) > self.settings.per_user_max
        if too_many or len(self.reservations.get(user, {})) >= RESERVATIONS_PER_BUYER_MAX:
            return "LIMIT_REACHED"
        left = {sku: self.counters(sku) for sku in items}
        if any(left[sku][0] + left[sku][1] < wanted for sku, wanted in items.items()):
            return "SOLD_OUT"
        if any(left[sku][0] < wanted for sku, wanted in items.items()):
            return "ALL_RESERVED"
        return None


def parse(items_text: str) -> Items:
    return {sku: int(units) for sku, units in (p.split("*") for p in items_text.split(","))}
