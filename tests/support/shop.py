"""A whole engine in one test process, moved one pass at a time, with a provider that obeys the test."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import count

import msgspec
from redis.asyncio import Redis

from engine.clock import ManualClock, SystemClock
from engine.connections import connect_redis_blocking
from engine.dispatcher import Dispatcher
from engine.drainer import Drainer
from engine.errors import ProviderUnavailable
from engine.inventory import Inventory
from engine.model import Reserved
from engine.orders import OrderService
from engine.payment.late import LateCaptures
from engine.payment.payer import Payer
from engine.payment.provider import (
    Action,
    Charge,
    ChargeStatus,
    PaymentRequest,
    ProviderRefused,
    ProviderResult,
    StatementLine,
    WebhookEvent,
)
from engine.payment.sandbox import SandboxCharge, SandboxEvent, SandboxProvider
from engine.payment.service import Payment, PaymentService
from engine.payment.webhooks import Inbox
from engine.reaper import Reaper
from engine.sales import Sale, SaleDirectory
from engine.store.database import Pool, connect
from tests.support.sales import make_inventory, open_sale, wish

PASSES_MAX = 100


class SerialIds:
    """Ids that count, so that a failure reads the same twice."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"


class ObedientProvider:
    """A provider whose charges become what the test says. Idempotent, as a real one."""

    name = "sandbox"
    offer = SandboxProvider.offer
    acknowledgement = SandboxProvider.acknowledgement
    bill_offset_hours = 0

    def __init__(self) -> None:
        self.action: Action | None = None  # What a buyer of a new charge has to do.
        self.charges: dict[str, ProviderResult] = {}
        self.answer = ChargeStatus.CAPTURED  # What a new charge becomes.
        self.down = False
        self.loses_answers = False  # It does what it is asked, and nobody hears of it.
        self.calls: Counter[str] = Counter()
        self._events = count(1)

    async def create(self, request: PaymentRequest) -> ProviderResult:
        self.calls["create"] += 1
        self._check_up()
        self.charges.setdefault(
            request.payment_id,
            ProviderResult(
                request.payment_id,
                self.answer,
                request.amount_minor,
                request.currency,
                "ref",
                action=self.action,
            ),
        )
        return self._answer(request.payment_id)

    async def query(self, charge: Charge) -> ProviderResult:
        self.calls["query"] += 1
        self._check_up()
        return self._answer(charge.payment_id)

    async def capture(self, charge: Charge) -> ProviderResult:
        self.calls["capture"] += 1
        self._check_up()
        if self.charges[charge.payment_id].status is ChargeStatus.AUTHORIZED:
            self.become(charge.payment_id, ChargeStatus.CAPTURED)
        return self._answer(charge.payment_id)

    async def cancel(self, charge: Charge) -> ProviderResult:
        self.calls["cancel"] += 1
        self._check_up()
        if self.charges[charge.payment_id].status in {
            ChargeStatus.PENDING,
            ChargeStatus.AUTHORIZED,
        }:
            self.become(charge.payment_id, ChargeStatus.FAILED)
        return self._answer(charge.payment_id)

    async def refund(self, charge: Charge) -> ProviderResult:
        self.calls["refund"] += 1
        self._check_up()
        known = self.charges[charge.payment_id]
        if known.status not in {ChargeStatus.CAPTURED, ChargeStatus.REFUNDED}:
            raise ProviderRefused("not captured")
        self.become(charge.payment_id, ChargeStatus.REFUNDED)
        return self._answer(charge.payment_id)

    async def statement(self, day: date) -> list[StatementLine]:
        raise AssertionError("nobody asks this provider for a statement")

    def become(self, payment_id: str, status: ChargeStatus) -> None:
        charge = self.charges[payment_id]
        self.charges[payment_id] = msgspec.structs.replace(charge, status=status)

    def event(
        self, payment_id: str, /, status: ChargeStatus, **changes: object
    ) -> tuple[str, bytes]:
        """(event id, body) of a webhook."""
        charge = self.charges[payment_id]
        assert charge.amount_minor is not None
        assert charge.currency is not None
        event_id = f"evt_{next(self._events)}"
        told = SandboxCharge(payment_id, "ref", status, charge.amount_minor, charge.currency)
        told = msgspec.structs.replace(told, **changes)
        return event_id, msgspec.json.encode(SandboxEvent(event_id, told))

    async def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, now_ms: int
    ) -> WebhookEvent:
        raise AssertionError("webhooks of this provider come through the inbox")

    def read_event(self, body: bytes) -> WebhookEvent:
        return SandboxProvider.read_event(self, body)  # type: ignore[arg-type]

    def count(self, status: ChargeStatus) -> int:
        return sum(charge.status is status for charge in self.charges.values())

    def _check_up(self) -> None:
        if self.down:
            raise ProviderUnavailable("down")

    def _answer(self, payment_id: str) -> ProviderResult:
        if self.loses_answers:
            raise ProviderUnavailable("the answer was lost")
        return self.charges.get(payment_id, ProviderResult(payment_id, ChargeStatus.UNKNOWN))


@dataclass
class Shop:
    """One sale and everything that works on it."""

    pool: Pool
    redis: Redis
    blocking_redis: Redis
    inventory: Inventory
    directory: SaleDirectory
    drainer: Drainer
    sale: Sale
    clock: ManualClock
    ids: SerialIds = field(default_factory=SerialIds)
    provider: ObedientProvider = field(default_factory=ObedientProvider)

    @classmethod
    async def open(
        cls,
        pool: Pool,
        redis: Redis,
        redis_url: str,
        postgres_url: str,
        stock: dict[str, int],
        **changes: object,
    ) -> "Shop":
        clock = ManualClock(SystemClock().now_ms())
        inventory = make_inventory(redis, clock)
        sale = await open_sale(pool, inventory, stock=stock, **changes)  # type: ignore[arg-type]
        directory = SaleDirectory(pool, SystemClock())
        blocking_redis = connect_redis_blocking(redis_url)
        drainer = Drainer(
            blocking_redis,
            lambda: connect(postgres_url),
            directory,
            SystemClock(),
            consumer="worker-0",
            batch_max=1000,
            attempts_max=3,
            claim_idle_seconds=60,
        )
        return cls(pool, redis, blocking_redis, inventory, directory, drainer, sale, clock)

    def __post_init__(self) -> None:
        self.orders = OrderService(self.pool, self.inventory, self.directory, self.clock)
        self.payments = PaymentService(self.pool, self.ids)
        self.reaper = Reaper(self.pool, self.clock, batch_max=100)
        self.inbox = Inbox(self.pool, {"sandbox": self.provider})
        self.dispatcher = Dispatcher(self.pool, self.inventory, self.directory)
        self.payer = Payer(
            self.pool,
            self.ids,
            {"sandbox": self.provider},
            LateCaptures(self.pool, self.inventory, self.directory),
            capture_with="sandbox",
            concurrency_max=32,
        )

    async def reserve(
        self, users: Iterable[str], items_text: str = "phone-black*1", key: str = "k"
    ) -> list[str]:
        """Reservation ids; every user must get one."""
        requests = [wish(self.sale, user, items_text, key) for user in users]
        outcomes = await self.inventory.reserve_batch(self.sale.ref, requests)
        assert all(isinstance(outcome, Reserved) for outcome in outcomes), outcomes
        return [request.reservation_id for request in requests]

    async def order(
        self, users: Iterable[str], items_text: str = "phone-black*1", key: str = "k"
    ) -> list[str]:
        """Reserved and drained."""
        reserved = await self.reserve(users, items_text, key)
        await self.drain()
        return reserved

    async def drain(self) -> None:
        for _ in range(PASSES_MAX):
            if not await self.drainer.drain_once(block_ms=1):
                return
        raise AssertionError("the drainer does not come to an end")

    async def pay(self, reservation_id: str, user: str, key: str = "p") -> Payment:
        """Started; the payer has not seen it yet."""
        return await self.payments.start(
            self.sale.sale_id, reservation_id, user, "sandbox", {}, key
        )

    async def tell(self, payment_id: str, /, status: ChargeStatus, **changes: object) -> bytes:
        """A webhook arrives; the inbox has not seen it yet."""
        event_id, body = self.provider.event(payment_id, status, **changes)
        assert await self.payments.receive_webhook("sandbox", event_id, body)
        return body

    async def settle(self) -> None:
        """Runs payer, inbox and dispatcher until none has work; retries are due at once."""
        for _ in range(PASSES_MAX):
            await self.pool.execute("UPDATE outbox SET due_at = now() WHERE due_at > now()")
            await self.pool.execute("UPDATE payments SET tried_at = NULL")
            worked = await self.payer.pay_once() + await self.inbox.handle_once()
            if not worked + await self.dispatcher.dispatch_once():
                return
        raise AssertionError("the outbox does not come to an end")

    async def expire(self, seconds: float = 1000) -> int:
        """Time passes, and the reaper comes."""
        self.clock.advance(seconds=seconds)
        return await self.reaper.reap_once()

    async def status(self, reservation_id: str) -> str:
        """Of the order."""
        status: str = await self.pool.fetchval(
            "SELECT status FROM orders WHERE reservation_id = $1", reservation_id
        )
        return status

    async def payment_status(self, payment_id: str) -> str:
        payment = await self.payments.get(payment_id)
        assert payment is not None
        return payment.status.value

    async def stock(self, sku: str = "phone-black") -> tuple[int, int, int]:
        """(available, reserved, sold) in Redis."""
        return (await self.inventory.snapshot(self.sale.sale_id)).stock[sku]

    async def counters(self, sku: str = "phone-black") -> tuple[int, int]:
        """(ordered, sold) in Postgres."""
        row = await self.pool.fetchrow("SELECT ordered, sold FROM sale_items WHERE sku = $1", sku)
        return row["ordered"], row["sold"]

    async def check_books(self) -> None:
        """Ledger, orders, counters and Redis tell the same; no order was charged twice."""
        rows = await self.pool.fetch(
            """
            WITH lines AS (
                SELECT sku, sum(units) FILTER (WHERE counter = 'stocked') AS stocked,
                       sum(units) FILTER (WHERE counter = 'ordered') AS ordered,
                       sum(units) FILTER (WHERE counter = 'sold') AS sold
                FROM ledger GROUP BY sku
            ), live AS (
                SELECT item.key AS sku,
                       sum(item.value::bigint) AS ordered,
                       sum(item.value::bigint) FILTER (WHERE status <> 'awaiting_payment') AS sold
                FROM orders, jsonb_each_text(items) AS item
                WHERE status IN ('awaiting_payment', 'paid', 'shipped', 'delivered') GROUP BY 1
            )
            SELECT sku, i.stocked, i.ordered, i.sold,
                   coalesce(lines.stocked, 0) AS lines_stocked,
                   coalesce(lines.ordered, 0) AS lines_ordered,
                   coalesce(lines.sold, 0) AS lines_sold,
                   coalesce(live.ordered, 0) AS live_ordered, coalesce(live.sold, 0) AS live_sold
            FROM sale_items i LEFT JOIN lines USING (sku) LEFT JOIN live USING (sku)
            """
        )
        stock = (await self.inventory.snapshot(self.sale.sale_id)).stock
        for row in rows:
            found = dict(row)
            books = (row["stocked"], row["ordered"], row["sold"])
            assert books == (row["lines_stocked"], row["lines_ordered"], row["lines_sold"]), found
            assert books[1:] == (row["live_ordered"], row["live_sold"]), found
            redis = stock[row["sku"]]
            assert (redis.stocked, redis.reserved + redis.sold, redis.sold) == books, (found, redis)
        assert await self.pool.fetchval("SELECT count(*) FROM outbox") == 0
        assert await self._charged_twice() == []

    async def _charged_twice(self) -> list[str]:
        rows = await self.pool.fetch("SELECT payment_id, reservation_id FROM payments")
        order_of = {row["payment_id"]: row["reservation_id"] for row in rows}
        kept = Counter(
            order_of[charge.payment_id]
            for charge in self.provider.charges.values()
            if charge.status is ChargeStatus.CAPTURED
        )
        return [order for order, charges in kept.items() if charges > 1]

    async def close(self) -> None:
        await self.drainer.close()
        await self.blocking_redis.aclose()
