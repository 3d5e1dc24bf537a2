"""What all practised gateways have in common: trades, a buyer's page, moods, notices.

Each gateway adds its own protocol; see `alipay`, `wechatpay` and `stripe` beside it.
"""

import asyncio
import html
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from api.sandbox.mischief import DUPLICATES, FAKE, REPLAY_SECONDS, UNDONE, Mischief, Mood
from api.sandbox.notices import Notice, Notices, Signed
from api.sandbox.trades import Trade, TradeBook, TradeState
from engine.clock import Clock
from engine.ids import Ids
from engine.payment.http import HttpReply

BODY_BYTES_MAX: Final = 262_144
STALE_MS: Final = 1  # How much later the older state is told.
PAGE: Final = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<h1>{title}</h1><p>{description}</p><p><b>{amount}</b></p><p>{state}</p>
<form method="post"><button name="decision" value="approve">Pay 付款</button>
<button name="decision" value="decline">Decline 取消</button></form>"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gone(Exception):
    """The trade does not allow that any more, or does not exist."""


class Simulator(ABC):
    """One gateway. `mood` is how it misbehaves."""

    name: str
    title: str

    def __init__(self, book: TradeBook, notices: Notices, clock: Clock, ids: Ids) -> None:
        self.book = book
        self.notices = notices
        self.clock = clock
        self.ids = ids
        self.mood = Mood()

    def make_app(self) -> web.Application:
        """To be mounted at `/<name>`."""
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._misbehave])
        app.router.add_get("/pay/{trade}", self.show_page)
        app.router.add_post("/pay/{trade}", self.decide)
        app.router.add_put("/mood", self.change_mood)
        self.add_routes(app.router)
        return app

    @abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None:
        """The protocol's own."""

    @abstractmethod
    def sign_notice(self, trade: Trade, event_id: str, at_ms: int, mischief: Mischief) -> Signed:
        """A notice of the trade as it is given, in the protocol's form; with FORGE or TAMPER none."""

    def is_taken(self, reply: HttpReply) -> bool:
        """Whether the merchant's answer ends the telling."""
        return 200 <= reply.status < 300

    def is_buyers(self, request: web.Request) -> bool:
        """Whether a buyer's browser asks, or a tester: they meet no mischief."""
        return request.path.startswith((f"/{self.name}/mood", f"/{self.name}/pay/"))

    def sealed(self, response: web.Response, *, genuine: bool) -> web.Response:
        """The answer as the protocol signs it, or with a signature that does not fit."""
        return response if genuine else web.json_response({"status": response.status})

    # The buyer.

    def buyers_trade(self, request: web.Request) -> Trade | None:
        """The one that the page is about."""
        return self.book.find(self.name, request.match_info["trade"])

    async def show_page(self, request: web.Request) -> web.Response:
        trade = self.buyers_trade(request)
        return web.Response(status=404) if trade is None else self.page_of(trade)

    async def decide(self, request: web.Request) -> web.StreamResponse:
        """`decision=approve` or `decline`, as a form."""
        trade = self.buyers_trade(request)
        if trade is None:
            raise web.HTTPNotFound
        return await self.decided(trade, request)

    async def decided(self, trade: Trade, request: web.Request) -> web.StreamResponse:
        decision = (await request.post()).get("decision")
        try:
            if decision == "approve":
                self.approve(trade)
            elif decision == "decline":
                self.decline(trade)
            else:
                return web.json_response({"error": "decision: approve or decline"}, status=400)
        except Gone as error:
            return web.json_response({"error": str(error)}, status=409)
        if trade.return_url and "text/html" in request.headers.get("Accept", ""):
            raise web.HTTPSeeOther(trade.return_url)
        return web.json_response({"state": trade.state_at(self.clock.now_ms()).value})

    def page_of(self, trade: Trade) -> web.Response:
        page = PAGE.format(
            title=html.escape(self.title),
            description=html.escape(trade.description),
            amount=f"{trade.amount_minor / 100:.2f} {html.escape(trade.currency)}",
            state=trade.state_at(self.clock.now_ms()).value,
        )
        return web.Response(text=page, content_type="text/html")

    # What happens to trades.

    def open(self, trade: Trade) -> Trade:
        """The trade, or the one that was opened under its number before."""
        known = self.book.find(self.name, trade.number)
        if known is not None:
            return known
        self.book.save(self.name, trade)
        return trade

    def approve(self, trade: Trade) -> None:
        """The buyer pays, once. Raises Gone."""
        if trade.state_at(self.clock.now_ms()) is not TradeState.OPEN:
            raise Gone(f"the trade is {trade.state_at(self.clock.now_ms())}")
        match self.mood.mischief:
            case Mischief.WRONG_AMOUNT:
                trade.amount_minor += 1
            case Mischief.WRONG_CURRENCY:
                trade.currency = "EUR" if trade.currency == "USD" else "USD"
        if trade.holds:
            trade.state = TradeState.AUTHORIZED
        else:
            trade.state, trade.paid_ms = TradeState.PAID, self.clock.now_ms()
        self._moved(trade)

    def decline(self, trade: Trade) -> None:
        """The buyer will not, or cannot; another try is open."""
        trade.declines += 1
        self.book.save(self.name, trade)

    def capture(self, trade: Trade) -> None:
        """Raises Gone."""
        if trade.state is not TradeState.AUTHORIZED:
            raise Gone(f"the trade is {trade.state}")
        trade.state, trade.paid_ms = TradeState.PAID, self.clock.now_ms()
        self._moved(trade)

    def close(self, trade: Trade) -> None:
        """Raises Gone where it was paid."""
        state = trade.state_at(self.clock.now_ms())
        if state not in {TradeState.OPEN, TradeState.AUTHORIZED, TradeState.CLOSED}:
            raise Gone(f"the trade is {state}")
        if trade.state is not TradeState.CLOSED:
            trade.state = TradeState.CLOSED
            self.book.save(self.name, trade)

    def refund(self, trade: Trade) -> None:
        """All of it, once. Raises Gone."""
        if trade.refunded_ms is not None:
            return
        if trade.state is not TradeState.PAID:
            raise Gone(f"the trade is {trade.state}")
        slow = self.mood.mischief is Mischief.SLOW_REFUND
        wait_ms = int(self.mood.seconds * 1000) if slow else 0
        trade.refunded_ms = self.clock.now_ms() + wait_ms
        if not slow:
            trade.state = TradeState.REFUNDED
        self._moved(trade, wait_ms)

    def _moved(self, trade: Trade, wait_ms: int = 0) -> None:
        self.book.save(self.name, trade)
        told = msgspec.structs.replace(trade)
        if wait_ms:
            told.state = TradeState.REFUNDED
        self._tell(told, wait_ms)

    def _tell(self, trade: Trade, wait_ms: int) -> None:
        """Plans the notices of a move, as the mood wants them."""
        due_ms, event_id = self.clock.now_ms() + wait_ms, self.ids.new("evt")
        match self.mood.mischief:
            case Mischief.DROP:
                return
            case Mischief.DELAY:
                self._put(trade, event_id, due_ms + int(self.mood.seconds * 1000))
            case Mischief.DUPLICATE:
                for _ in range(DUPLICATES):
                    self._put(trade, event_id, due_ms)
            case Mischief.REORDER:
                self._put(trade, event_id, due_ms)
                self._put(_older(trade), self.ids.new("evt"), due_ms + STALE_MS)
            case mischief:
                self._put(trade, event_id, due_ms, mischief if mischief in FAKE else Mischief.NONE)

    def _put(
        self, trade: Trade, event_id: str, due_ms: int, mischief: Mischief = Mischief.NONE
    ) -> None:
        told = msgspec.structs.replace(trade)  # As it is now, whatever becomes of it.

        def sign(now_ms: int) -> Signed:
            at_ms = now_ms - REPLAY_SECONDS * 1000 if mischief is Mischief.REPLAY else now_ms
            return self.sign_notice(told, event_id, at_ms, mischief)

        fake = mischief is not Mischief.NONE
        self.notices.put(Notice(trade.notify_url, sign, self.is_taken, due_ms, once=fake))

    # Moods.

    async def change_mood(self, request: web.Request) -> web.Response:
        """`{"mischief": "delay", "seconds": 5, "calls": 2}`."""
        try:
            self.mood = msgspec.json.decode(await request.read(), type=Mood)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(msgspec.to_builtins(self.mood))

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.is_buyers(request):
            return await handler(request)
        mood, self.mood = self.mood, self.mood.after_a_call()
        if mood.mischief in UNDONE:
            return _undone(mood.mischief, request)
        response = await handler(request)
        if mood.mischief is Mischief.LATE_ANSWER:
            await asyncio.sleep(mood.seconds)
        assert isinstance(response, web.Response)
        return self.sealed(response, genuine=mood.mischief is not Mischief.UNSIGNED)


def _older(trade: Trade) -> Trade:
    """The trade before its last move."""
    before = TradeState.PAID if trade.refunded_ms is not None else TradeState.OPEN
    return msgspec.structs.replace(trade, state=before, refunded_ms=None)


def _undone(mischief: Mischief, request: web.Request) -> web.Response:
    if mischief is Mischief.CUT and request.transport is not None:
        request.transport.abort()
    if mischief is Mischief.NONSENSE:
        return web.Response(text="<html>It works!</html>", content_type="text/html")
    return web.Response(status=503)
