"""Refuses from memory what Redis would refuse: sold out, window, pause. Never says yes.

A front that was told so once watches the sale: it looks at config and stock every 50 ms, and knows
who has a record there. Those are always sent to Redis, because a replay keeps its first answer.
"""

import asyncio
import logging
import re
from typing import Final, Protocol

from redis.asyncio import Redis

from engine.clock import Clock
from engine.errors import Unavailable
from engine.inventory.holders import HOLDERS_MAX, Holders
from engine.inventory.holders_feed import HoldersFeed
from engine.inventory.inventory import Counters, Inventory, StockSnapshot
from engine.model import Outcome, SaleState

logger = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 0.05  # Between two looks at a sale that is watched.
FRESH_SECONDS: Final = 0.1  # A look is believed for so long, counted from when Redis was asked.
WATCH_SECONDS: Final = 5.0  # A sale is watched for so long after its last refusal.
SALES_MAX: Final = 32  # Watched at the same time in one process.
OUTCOMES_MAX: Final = 4096  # Distinct wishes whose outcome is remembered per look.

# What Redis may say and memory may repeat. The limit per buyer is not here: it needs the record.
_REPEATABLE: Final = frozenset(
    {
        Outcome.SOLD_OUT,
        Outcome.ALL_RESERVED,
        Outcome.NOT_STARTED,
        Outcome.ENDED,
        Outcome.PAUSED,
    }
)
_WISH = re.compile(r"([^*,]+)\*([0-9]{1,15})")
_UNKNOWN: Final = object()


class AnySale(Protocol):
    """What is asked of a sale: its name, and which stock and settings the caller believes in."""

    @property
    def sale_id(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def revision(self) -> int: ...


class StockMemory:
    """What one process knows of the sales that refuse."""

    def __init__(
        self,
        inventory: Inventory,
        redis: Redis,
        clock: Clock,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        holders_max: int = HOLDERS_MAX,
    ) -> None:
        self._inventory = inventory
        self._redis = redis
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._holders_max = holders_max
        self._feed = HoldersFeed(redis)
        self.watched: dict[str, Watch] = {}  # By sale, the same dict all along.
        self._tasks: set[asyncio.Task[None]] = set()
        self._monotonic = clock.monotonic
        self._stopped = False

    def refusal(self, sale: AnySale, user_id: str, items_text: str, now_ms: int) -> Outcome | None:
        """What reserve.lua would refuse this with; None: ask Redis. Does no I/O.

        The answer is that of an instant at most FRESH_SECONDS ago, the window's that of `now_ms`.
        """
        watch = self.watched.get(sale.sale_id)
        if watch is None:
            return None
        look = watch.look
        if look is None or self._monotonic() >= look.fresh_until:
            return None
        if look.epoch != sale.epoch or look.revision < sale.revision:
            return None  # The caller knows of a later change, perhaps because it made it.
        outcome = look.outcome(items_text, now_ms)
        if outcome is None or user_id in watch.holders:
            return None
        watch.used = True
        return outcome

    def learnt(self, sale: AnySale, outcome: Outcome) -> None:
        """Redis refused somebody: the sale is watched from now on. Does no I/O."""
        watch = self.watched.get(sale.sale_id)
        if watch is not None:
            watch.used = True
        elif outcome in _REPEATABLE and len(self.watched) < SALES_MAX and not self._stopped:
            self._begin(sale.sale_id)

    async def refresh_once(self) -> int:
        """One look at every sale that is watched. Returns how many can be answered from memory."""
        watches = tuple(self.watched.values())
        return sum(await asyncio.gather(*(watch.refresh_once() for watch in watches)))

    async def stop(self) -> None:
        """Answers nothing from memory any more, and closes. Idempotent."""
        self._stopped = True
        self.watched.clear()
        await self._feed.stop()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, sale_id: str) -> None:
        holders = Holders(self._redis, self._feed, sale_id, holders_max=self._holders_max)
        watch = self.watched[sale_id] = Watch(self._inventory, holders, self._clock, sale_id)
        task = asyncio.create_task(self._follow(watch), name=f"watch {sale_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, watch: "Watch") -> None:
        try:
            while watch.is_wanted():
                began = self._monotonic()
                await watch.refresh_once()
                if self._stopped:
                    return  # wait_for, below redis-py, may swallow a cancellation.
                await asyncio.sleep(max(0.0, began + self._refresh_seconds - self._monotonic()))
        except Exception:
            logger.exception(
                "Sale %s is no longer watched.", watch.sale_id, extra={"action": "watch_failed"}
            )
        finally:
            if self.watched.get(watch.sale_id) is watch:
                del self.watched[watch.sale_id]
            await watch.holders.stop()


class Watch:
    """One sale that is watched. `look` is the newest look at it; None: nothing can be said."""

    def __init__(self, inventory: Inventory, holders: Holders, clock: Clock, sale_id: str) -> None:
        self.sale_id = sale_id
        self.holders = holders
        holders.when_lost(self.forget)
        self.look: Look | None = None
        self.used = True  # since it was last asked whether the watch is wanted
        self._inventory = inventory
        self._clock = clock
        self._used_at = 0.0
        self._refreshing = asyncio.Lock()

    def is_wanted(self) -> bool:
        """Whether somebody was refused within WATCH_SECONDS."""
        now = self._clock.monotonic()
        if self.used:
            self.used = False
            self._used_at = now
        return now - self._used_at < WATCH_SECONDS

    async def refresh_once(self) -> bool:
        """One look. Returns whether refusals can be answered from it."""
        async with self._refreshing:
            try:
                return await self._refresh()
            except Unavailable:
                # Not an event of its own: whoever asks Redis next is told.
                return self.forget()

    async def _refresh(self) -> bool:
        if self.holders.too_many:
            return await self._give_up()
        asked_at = self._clock.monotonic()
        snapshot = await self._inventory.snapshot(self.sale_id)
        if not _is_live(snapshot):
            return self.forget()
        epoch = snapshot.epoch
        assert epoch is not None
        if not self.holders.are_complete(epoch):
            self.forget()
            await self.holders.load(epoch)
            asked_at = self._clock.monotonic()
            snapshot = await self._inventory.snapshot(self.sale_id)
        # Whoever got a record before this snapshot is known before it is used.
        await self.holders.catch_up()
        if not _is_live(snapshot) or snapshot.epoch != epoch:
            return self.forget()
        if not self.holders.are_complete(epoch):
            return await self._give_up()
        self._keep(snapshot, epoch, asked_at + FRESH_SECONDS)
        return True

    def _keep(self, snapshot: StockSnapshot, epoch: int, fresh_until: float) -> None:
        look = self.look
        if look is None or look.snapshot != snapshot:
            look = self.look = Look(snapshot, epoch)
        look.fresh_until = fresh_until

    async def _give_up(self) -> bool:
        if self.holders.too_many:
            await self.holders.stop()  # More of them would be listened to in vain.
        return self.forget()

    def forget(self) -> bool:
        """Nothing is said from memory until the next look. False, for the caller to hand on."""
        self.look = None
        return False


class Look:
    """Config and stock of one instant, and the refusals that follow from them.

    In the order of reserve.lua, for somebody who has no record: a test holds the two together.
    """

    __slots__ = (
        "_closed",
        "_closes_at_ms",
        "_opens_at_ms",
        "_outcomes",
        "_paused",
        "_per_user_max",
        "epoch",
        "fresh_until",
        "revision",
        "snapshot",
    )

    def __init__(self, snapshot: StockSnapshot, epoch: int) -> None:
        config = snapshot.config
        self.snapshot = snapshot
        self.epoch = epoch
        self.fresh_until = 0.0
        self.revision = int(config["revision"])
        self._closed = snapshot.state is SaleState.CLOSED
        self._paused = snapshot.state is SaleState.PAUSED
        self._opens_at_ms = int(config["opens_at_ms"])
        self._closes_at_ms = int(config["closes_at_ms"])
        self._per_user_max = int(config["per_user_max"])
        self._outcomes: dict[str, Outcome | None] = {}

    def outcome(self, items_text: str, now_ms: int) -> Outcome | None:
        """Why this cannot be reserved now; None: it can, or Redis has to say."""
        if self._closed or now_ms >= self._closes_at_ms:
            return Outcome.ENDED
        if now_ms < self._opens_at_ms:
            return Outcome.NOT_STARTED
        if self._paused:
            return Outcome.PAUSED
        known = self._outcomes.get(items_text, _UNKNOWN)
        return self._find_out(items_text) if known is _UNKNOWN else known  # type: ignore[return-value]

    def _find_out(self, items_text: str) -> Outcome | None:
        outcome = self._shortage(items_text)
        if len(self._outcomes) < OUTCOMES_MAX:
            self._outcomes[items_text] = outcome
        return outcome

    def _shortage(self, items_text: str) -> Outcome | None:
        wanted = _wanted(items_text)
        if not wanted or sum(wanted.values()) > self._per_user_max:
            return None
        found: list[tuple[int, Counters]] = []
        for sku, quantity in wanted.items():
            counters = self.snapshot.stock.get(sku)
            if counters is None:
                return None
            found.append((quantity, counters))
        if any(c.available + c.reserved < quantity for quantity, c in found):
            return Outcome.SOLD_OUT
        if any(c.available < quantity for quantity, c in found):
            return Outcome.ALL_RESERVED
        return None


def _is_live(snapshot: StockSnapshot) -> bool:
    return snapshot.epoch is not None and snapshot.state is not SaleState.DRAINING


def _wanted(items_text: str) -> dict[str, int] | None:
    """Units by SKU; None for a text that no front sends: Redis may say what it thinks of it."""
    wanted: dict[str, int] = {}
    for part in items_text.split(","):
        item = _WISH.fullmatch(part)
        if item is None or item[1] in wanted:
            return None
        wanted[item[1]] = int(item[2])
    return wanted
