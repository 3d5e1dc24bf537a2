"""A served engine that is paid by practised gateways, moved one pass at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, Final
from urllib.parse import quote

import asyncpg
import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from api.http_client import AioHttpClient
from api.sandbox.gateway_keys import GatewayKeys, make_gateway_keys
from api.sandbox.gateways import Gateways
from api.sandbox.mischief import Mischief, Mood
from api.sandbox.notices import Notices
from api.sandbox.simulator import Simulator
from api.sandbox.trades import TradeBook, TradeState
from engine.clock import ManualClock, SystemClock
from engine.connections import connect_redis
from engine.dispatcher import Dispatcher
from engine.errors import ProviderUnavailable
from engine.ids import RandomIds
from engine.keys import shard_keys
from engine.payment.http import HttpReply
from engine.payment.late import LateCaptures
from engine.payment.payer import Payer
from engine.payment.provider import Provider
from engine.payment.providers import plain_providers
from engine.payment.webhooks import Inbox
from engine.reaper import Reaper
from engine.reconciler import check
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from engine.store.migrate import upgrade
from tests.support.front import Reply, Served, serve

HTTP_SECONDS: Final = 5.0  # The engine's patience with a gateway, however busy the machine is, …
SHORT_SECONDS: Final = 0.25  # … while one answers late, …
LATE_SECONDS: Final = 0.5  # … which outlasts that.
PASSES_MAX: Final = 60
SALES: Final = {"alipay": "in-yuan", "wechatpay": "in-yuan", "stripe": "in-dollars"}
UNITS: Final = 200


_database_numbers = count(1)


@cache
def gateway_keys() -> GatewayKeys:
    """Once per run: RSA keys take their time."""
    return make_gateway_keys()


class ImpatientClient(AioHttpClient):
    """One whose patience may be changed."""

    seconds_max = HTTP_SECONDS

    async def _send(self, *about: Any) -> HttpReply:
        try:
            async with asyncio.timeout(self.seconds_max):
                return await super()._send(*about)
        except TimeoutError as error:
            raise ProviderUnavailable("The test's patience is over.") from error


@dataclass
class Practice:
    """One sale, three gateways, and everything between them."""

    served: Served
    gateways: Gateways
    clock: ManualClock  # the gateways'
    http: "ImpatientClient"
    providers: dict[str, Provider]

    def __post_init__(self) -> None:
        engine = self.served.engine
        self.pool = engine.pool
        self.payer = Payer(
            engine.pool,
            engine.ids,
            self.providers,
            LateCaptures(engine.pool, engine.inventory, engine.directory),
            capture_with=None,
            concurrency_max=8,
        )
        self.inbox = Inbox(engine.pool, self.providers)
        self.reaper = Reaper(engine.pool, engine.clock, batch_max=100)
        self.dispatcher = Dispatcher(engine.pool, engine.inventory, engine.directory)
        self._numbers = count(1)
        self.buyers: dict[str, str] = {}  # of orders and of payments

    def gateway(self, provider: str) -> Simulator:
        return next(one for one in self.gateways.all if one.name == provider)

    def mood(self, provider: str, mischief: Mischief, **more: Any) -> None:
        self.http.seconds_max = SHORT_SECONDS if mischief is Mischief.LATE_ANSWER else HTTP_SECONDS
        self.gateway(provider).mood = Mood(mischief, **{"seconds": LATE_SECONDS} | more)

    def calm_down(self) -> None:
        """No gateway misbehaves, and nothing is on its way."""
        self.http.seconds_max = HTTP_SECONDS
        for gateway in self.gateways.all:
            gateway.mood = Mood()
        self.gateways.notices.forget()
        self.rewind()

    async def order(self, provider: str) -> str:
        """The id of a fresh buyer's order that awaits payment, in a currency that is taken."""
        user = f"buyer-{next(self._numbers)}"
        reserved = await self.served.reserve(user, sale=SALES[provider])
        assert reserved.status == 201, reserved.body
        await self.served.drain()
        order = str(reserved.json["reservation_id"])
        self.buyers[order] = user
        return order

    async def start(self, order: str, provider: str, **body: Any) -> str:
        """The id of a payment that was started; the payer has not seen it yet."""
        path = f"/v1/orders/{order}/payments"
        user = self.buyers[order]
        reply = await self.served.post(path, user=user, body={"provider": provider, **body})
        assert reply.status == 201, reply.body
        payment = str(reply.json["payment_id"])
        self.buyers[payment] = user
        return payment

    async def shown(self, payment: str) -> Any:
        path, user = f"/v1/payments/{payment}", self.buyers[payment]
        reply = await self.served.get(path, user=user)
        assert reply.status == 200, reply.body
        return reply.json

    async def pending(self, order: str, provider: str, **body: Any) -> str:
        """A payment that waits for its buyer."""
        payment = await self.start(order, provider, **body)
        await self.work()
        shown = await self.shown(payment)
        assert "action" in shown, shown
        return payment

    async def decide(self, payment: str, decision: str = "approve") -> int:
        """The buyer does what the action says; the status that the gateway's page answers."""
        return await self.pay_at((await self.shown(payment))["action"], decision)

    async def pay_at(self, action: Any, decision: str = "approve") -> int:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        url = self._page_of(action)
        return (await self.http.post(url, f"decision={decision}".encode(), headers)).status

    async def visit(self, payment: str) -> None:
        """The buyer looks at the gateway's page, and does nothing yet."""
        url = self._page_of((await self.shown(payment))["action"])
        assert (await self.http.get(url, {})).status == 200

    def _page_of(self, action: Any) -> str:
        url = action.get("url") or action.get("code")
        if url is None:
            stripe = self.served.engine.settings.stripe_url
            url = f"{stripe}/pay/{quote(action['client_secret'])}"
        return str(url)

    async def cancel(self, order: str) -> int:
        """Of the buyer's; the status."""
        path, user = f"/v1/orders/{order}/cancel", self.buyers[order]
        return (await self.served.post(path, user=user)).status

    async def work(self) -> None:
        """Payer, inbox and dispatcher until none has work; what is to be repeated is due at once."""
        for _ in range(PASSES_MAX):
            await self.pool.execute("UPDATE outbox SET due_at = now() WHERE due_at > now()")
            await self.pool.execute("UPDATE payments SET tried_at = NULL")
            worked = await self.payer.pay_once() + await self.inbox.handle_once()
            if not worked + await self.dispatcher.dispatch_once():
                return
            if await self._only_waits():
                return
        left = await self.pool.fetch("SELECT kind, last_error FROM outbox")
        raise AssertionError(f"the outbox does not come to an end: {list(map(dict, left))}")

    async def _only_waits(self) -> bool:
        """Whether what is left waits for the gateway's own time."""
        rows = await self.pool.fetch("SELECT last_error FROM outbox")
        return bool(rows) and all(row["last_error"] == "the refund is under way" for row in rows)

    async def deliver(self, seconds: float = 0) -> list[int]:
        """The gateways' notices, `seconds` later; the statuses that answered them."""
        self.clock.advance(seconds=seconds)
        await self.gateways.notices.deliver_once()
        statuses = list(self.gateways.notices.statuses)
        self.gateways.notices.statuses.clear()
        return statuses

    async def ask(self) -> int:
        """The engine asks after payments, as it does when nothing was heard for a minute."""
        await self.pool.execute(
            "UPDATE payments SET updated_at = now() - interval '60 s',"
            " created_at = now() - interval '61 s', asked_at = NULL"
        )
        return await self.payer.query_once()

    async def deadline(self, *, at_gateways: bool = False) -> None:
        """It passes for all orders; what is unheard of is asked after, and the reaper comes.

        At the gateways, too, an hour passes only if that is said: what
        they tell then is of the future to the front.
        """
        await self.pool.execute(
            "UPDATE payments SET updated_at = now() - interval '2 minutes', asked_at = NULL"
        )
        await self.pool.execute("UPDATE orders SET reserved_until = now() - interval '1 second'")
        if at_gateways:
            self.clock.advance(seconds=3600)
        await (
            self.reaper.reap_once()
        )  # What is unheard of does not expire before it was asked after.
        await self.payer.query_once()
        await self.reaper.reap_once()

    async def overdue(self) -> None:
        """All orders are so long overdue that the reaper waits for no answer, and it comes."""
        await self.pool.execute("UPDATE orders SET reserved_until = now() - interval '1 minute'")
        await self.reaper.reap_once()
        while await self.dispatcher.dispatch_once():
            pass

    @asynccontextmanager
    async def sold_out(self, provider: str, *, unless: bool) -> AsyncIterator[None]:
        """Meanwhile Redis has no unit left to reserve."""
        key = shard_keys(SALES[provider]).stock
        redis, field = self.served.engine.redis, "phone-black:available"
        available = int(await redis.hget(key, field) or 0)
        if not unless:
            await redis.hset(key, field, "0")
        yield
        if not unless:
            await redis.hset(key, field, str(available))

    def rewind(self) -> None:
        """The gateways' clock is ours again."""
        self.clock.advance(seconds=(SystemClock().now_ms() - self.clock.now_ms()) / 1000)

    def now_text(self) -> str:
        return str(self.clock.now_ms() // 1000)

    async def order_status(self, order: str) -> str:
        reservation = order.partition(".")[2]
        status: str = await self.pool.fetchval(
            "SELECT status FROM orders WHERE reservation_id = $1", reservation
        )
        return status

    async def payment_status(self, payment: str) -> str:
        status: str = await self.pool.fetchval(
            "SELECT status FROM payments WHERE payment_id = $1", payment
        )
        return status

    async def states(self, order: str) -> list[TradeState]:
        """Of the trades that gateways have for an order, oldest first."""
        rows = await self.pool.fetch(
            "SELECT provider, payment_id FROM payments WHERE reservation_id = $1 ORDER BY created_at",
            order.partition(".")[2],
        )
        found = (self.gateways.book.find(row["provider"], row["payment_id"]) for row in rows)
        now_ms = self.clock.now_ms()
        return [trade.state_at(now_ms) for trade in found if trade is not None]

    async def refund(self, payment: str) -> Reply:
        path = f"/v1/payments/{payment}/refunds"
        return await self.served.post(path, user=self.buyers[payment])

    async def inbox_size(self) -> int:
        size: int = await self.pool.fetchval("SELECT count(*) FROM webhook_inbox")
        return size

    async def check_letters(self, *, letters: int = 0) -> None:
        """So many things wait for a person; they are seen to."""
        found = await self.pool.fetch(
            "UPDATE dead_letters SET dismissed_at = now() WHERE dismissed_at IS NULL"
            " RETURNING source, reference, error"
        )
        assert len(found) == letters, [dict(row) for row in found]

    async def check_oath(self) -> None:
        """Every invariant holds, for all orders there are."""
        findings = await check(self.served.engine, settle_seconds=0)
        broken = [finding.line for finding in findings if not finding.ok]
        assert not broken, "\n".join(broken)


@asynccontextmanager
async def empty_redis(valkey: EmbeddedValkey) -> AsyncIterator[None]:
    client = connect_redis(valkey.url, 5)
    await client.flushall()
    await client.aclose()
    yield


@asynccontextmanager
async def empty_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of a migrated database for a whole module of tests."""
    name = f"practice_{next(_database_numbers)}"
    admin = await asyncpg.connect(postgres.url_of("postgres"))
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        connection = await asyncpg.connect(postgres.url_of(name))
        try:
            await upgrade(connection)
        finally:
            await connection.close()
        yield postgres.url_of(name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@asynccontextmanager
async def practise(redis_url: str, postgres_url: str, **changes: Any) -> AsyncIterator[Practice]:
    """Everything started; nothing sold yet."""
    clock, keys = ManualClock(SystemClock().now_ms()), gateway_keys()
    async with ImpatientClient(connections_max=8, timeout_seconds=HTTP_SECONDS) as http:
        gateways = Gateways(TradeBook(), Notices(http, clock), clock, RandomIds(), keys)
        app = web.Application()
        gateways.mount(app)
        async with TestServer(app) as gateway_server:
            root = str(gateway_server.make_url("")).rstrip("/")
            settings = keys.settings(root) | changes
            async with serve(redis_url, postgres_url, **settings) as served:
                gateways.reached_at(root, served.url)
                told = msgspec.structs.replace(served.engine.settings, public_url=served.url)
                providers = plain_providers(told, http, clock)
                for sale_id, currency in (("in-yuan", "CNY"), ("in-dollars", "USD")):
                    await served.sell(sale_id, items=[_item(currency)])
                yield Practice(served, gateways, clock, http, providers)
        gateways.book.close()


def _item(currency: str) -> dict[str, object]:
    price = {"amount_minor": 129_900, "currency": currency}
    return {"sku": "phone-black", "name": {"en": "Phone"}, "units": UNITS, "price": price}
