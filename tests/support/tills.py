"""A served shop with its worker, moved one pass at a time, and a provider that obeys the test."""

from contextlib import suppress
from dataclasses import dataclass, field

from engine.clock import ManualClock
from engine.dispatcher import Dispatcher
from engine.errors import Conflict, Unavailable
from engine.model import parse_public_id
from engine.payment.late import LateCaptures
from engine.payment.payer import Payer
from engine.payment.provider import ChargeStatus
from engine.payment.webhooks import Inbox
from engine.reaper import Reaper
from tests.support.front import Served
from tests.support.shop import ObedientProvider

PASSES_MAX = 50


@dataclass
class Till:
    """Everything that works on the orders of a served engine."""

    served: Served
    provider: ObedientProvider = field(default_factory=ObedientProvider)

    def __post_init__(self) -> None:
        engine = self.served.engine
        late = LateCaptures(engine.pool, engine.inventory, engine.directory)
        providers = {"sandbox": self.provider}
        self.payer = Payer(
            engine.pool, engine.ids, providers, late, capture_with="sandbox", concurrency_max=8
        )
        self.inbox = Inbox(engine.pool, providers)
        self.dispatcher = Dispatcher(engine.pool, engine.inventory, engine.directory)
        self.clock = ManualClock(engine.clock.now_ms())
        self.reaper = Reaper(engine.pool, self.clock, batch_max=100)

    async def settle(self) -> None:
        """Until nobody has anything left to do; retries are due at once."""
        pool = self.served.engine.pool
        for _ in range(PASSES_MAX):
            await self.served.drain()
            await pool.execute("UPDATE outbox SET due_at = now() WHERE due_at > now()")
            await pool.execute("UPDATE payments SET tried_at = NULL")
            worked = await self.payer.pay_once() + await self.inbox.handle_once()
            if not worked + await self.dispatcher.dispatch_once():
                return
        raise AssertionError("the outbox does not come to an end")

    async def pay(self, order_id: str, user: str = "u1") -> str:
        """Asked for; the payer has not seen it yet."""
        reply = await self.served.post(f"/v1/orders/{order_id}/payments", user=user)
        assert reply.status == 201, reply.body
        payment_id: str = reply.json["payment_id"]
        return payment_id

    async def webhook(self, payment_id: str) -> None:
        """The provider says that it was captured after all; the inbox has not seen it yet."""
        self.provider.become(payment_id, ChargeStatus.CAPTURED)
        event_id, body = self.provider.event(payment_id, ChargeStatus.CAPTURED)
        assert await self.served.engine.payments.receive_webhook("sandbox", event_id, body)

    async def cancel(self, order_id: str, user: str = "u1") -> None:
        """If it still can be."""
        ids = parse_public_id(order_id)
        assert ids is not None
        with suppress(Conflict, Unavailable):
            await self.served.engine.orders.cancel(*ids, user)

    async def status(self, order_id: str) -> str:
        shown = await self.served.get(f"/v1/orders/{order_id}", user="u1")
        status: str = shown.json["status"]
        return status
