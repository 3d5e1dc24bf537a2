"""A sale as Postgres keeps it. A pure value."""

from datetime import datetime
from enum import StrEnum
from functools import cached_property

import msgspec

from engine.admission.room.settings import RoomSettings
from engine.inventory import SaleRef
from engine.inventory.inventory import SaleSettings
from engine.model import SaleState
from engine.sales.document import SaleItem


class SalePhase(StrEnum):
    """What a buyer is shown: the state, the window and the fence in one word."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    PAUSED = "paused"
    ENDED = "ended"
    CLOSED = "closed"
    RECOVERING = "recovering"


class Sale(msgspec.Struct, frozen=True, dict=True):
    """One sale. `state` is what the operator wants; `fenced` says why it is shut all the same."""

    sale_id: str
    name: dict[str, str]
    opens_at: datetime
    closes_at: datetime
    per_user_max: int
    reservation_seconds: int
    auto_capture: bool
    state: SaleState
    revision: int
    epoch: int
    fenced: str | None
    launched: bool
    items: tuple[SaleItem, ...]
    room: RoomSettings | None = None  # None: it never had a waiting room.

    @property
    def ref(self) -> SaleRef:
        return SaleRef(self.sale_id, self.epoch)

    @cached_property
    def opens_at_ms(self) -> int:
        return epoch_ms(self.opens_at)

    @cached_property
    def closes_at_ms(self) -> int:
        return epoch_ms(self.closes_at)

    @property
    def settings(self) -> SaleSettings:
        """What Redis has to hold of this sale."""
        return SaleSettings(
            revision=self.revision,
            state=self.state,
            opens_at_ms=self.opens_at_ms,
            closes_at_ms=self.closes_at_ms,
            per_user_max=self.per_user_max,
            reservation_seconds=self.reservation_seconds,
        )

    @cached_property
    def prices(self) -> dict[str, int]:
        """Per SKU, in the smallest unit of `currency`."""
        return {item.sku: item.price.amount_minor for item in self.items}

    @property
    def currency(self) -> str:
        return self.items[0].price.currency

    def phase(self, now_ms: int, *, fenced_in_redis: bool = False) -> SalePhase:
        """The word to show. Redis may know of a fence before Postgres does."""
        if self.fenced is not None or fenced_in_redis or not self.launched:
            return SalePhase.RECOVERING
        if self.state is SaleState.CLOSED:
            return SalePhase.CLOSED
        if now_ms >= self.closes_at_ms:
            return SalePhase.ENDED
        if now_ms < self.opens_at_ms:
            return SalePhase.SCHEDULED
        return SalePhase.PAUSED if self.state is SaleState.PAUSED else SalePhase.OPEN


def epoch_ms(time: datetime) -> int:
    """Milliseconds since the Unix epoch. Whole seconds and a fraction apart: floats would round."""
    return int(time.replace(microsecond=0).timestamp()) * 1000 + time.microsecond // 1000
