"""Stripe's side of its API: payment intents, refunds, search, balance transactions, signed events.

Repeats of a call by its Idempotency-Key are answered as the first one was.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from api.sandbox.gateway_keys import GatewayKeys
from api.sandbox.mischief import Mischief
from api.sandbox.notices import Notices, Signed
from api.sandbox.simulator import Gone, Simulator
from api.sandbox.trades import Trade, TradeBook, TradeState
from engine.clock import Clock
from engine.ids import Ids
from engine.payment.stripe_objects import PAYMENT_ID
from engine.payment.stripe_signing import HEADER, signature_header

STATES: Final = {
    TradeState.OPEN: "requires_payment_method",
    TradeState.AUTHORIZED: "requires_capture",
    TradeState.PAID: "succeeded",
    TradeState.CLOSED: "canceled",
    TradeState.REFUNDED: "succeeded",
}
KINDS: Final = {
    TradeState.OPEN: "payment_intent.created",
    TradeState.AUTHORIZED: "payment_intent.amount_capturable_updated",
    TradeState.PAID: "payment_intent.succeeded",
    TradeState.CLOSED: "payment_intent.canceled",
    TradeState.REFUNDED: "charge.refunded",
}
PAGE_MAX: Final = 100
GOOD_CARD: Final = "pm_card_visa"  # As in Stripe's own tests; others are declined.

Call = Callable[[dict[str, str]], web.Response]


class StripeGateway(Simulator):
    """`/stripe/v1/…`, as Stripe's `api.stripe.com/v1/…`."""

    name = "stripe"
    title = "Stripe (sandbox)"

    notify_url = ""  # Where events go, as an account says it: set by whoever serves it.

    def __init__(
        self, book: TradeBook, notices: Notices, clock: Clock, ids: Ids, keys: GatewayKeys
    ) -> None:
        super().__init__(book, notices, clock, ids)
        self._keys = keys
        self._answers: dict[str, tuple[int, str]] = {}  # by Idempotency-Key

    def add_routes(self, router: web.UrlDispatcher) -> None:
        intents = "/v1/payment_intents"
        router.add_post(intents, self.create)
        router.add_get(f"{intents}/search", self.search)
        router.add_get(intents + "/{intent}", self.show)
        router.add_post(intents + "/{intent}/{verb:capture|cancel}", self.move)
        router.add_post("/v1/refunds", self.make_refund)
        router.add_get("/v1/refunds", self.list_refunds)
        router.add_get("/v1/balance_transactions", self.list_transactions)

    def buyers_trade(self, request: web.Request) -> Trade | None:
        """By the client secret, as a browser has it."""
        intent = request.match_info["trade"].partition("_secret_")[0]
        return self.book.find(self.name, intent)

    # The merchant's calls.

    async def create(self, request: web.Request) -> web.Response:
        return await self._once(request, self._create)

    async def move(self, request: web.Request) -> web.Response:
        verb = request.match_info["verb"]
        return await self._once(request, lambda _: self._move(self._found(request), verb))

    async def make_refund(self, request: web.Request) -> web.Response:
        return await self._once(request, self._make_refund)

    async def show(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response(self._intent(self._found(request)))

    async def search(self, request: web.Request) -> web.Response:
        self._check(request)
        _, _, number = request.query["query"].partition(":")
        trade = self.book.find(self.name, number.strip("'"))
        found = [] if trade is None else [self._intent(trade)]
        return web.json_response({"object": "search_result", "data": found, "has_more": False})

    async def list_refunds(self, request: web.Request) -> web.Response:
        self._check(request)
        trade = self.book.find(self.name, request.query["payment_intent"])
        found = [] if trade is None or trade.refunded_ms is None else [self._refund(trade)]
        return web.json_response({"object": "list", "data": found, "has_more": False})

    async def list_transactions(self, request: web.Request) -> web.Response:
        self._check(request)
        begin, end = (int(request.query[f"created[{word}]"]) * 1000 for word in ("gte", "lt"))
        lines = [
            line
            for trade in self.book.of(self.name)
            for line in self._transactions(trade)
            if begin <= line["created"] * 1000 < end
        ]
        after = request.query.get("starting_after")
        if after is not None:
            lines = lines[[line["id"] for line in lines].index(after) + 1 :]
        size = min(int(request.query.get("limit", "10")), PAGE_MAX)
        return web.json_response({"data": lines[:size], "has_more": len(lines) > size})

    def _create(self, wish: dict[str, str]) -> web.Response:
        trade = self.open(
            Trade(
                wish[f"metadata[{PAYMENT_ID}]"],
                self.ids.new("pi"),
                int(wish["amount"]),
                wish["currency"].upper(),
                self.clock.now_ms(),
                self.notify_url,
                wish.get("description", ""),
                return_url=wish.get("return_url"),
                holds=wish.get("capture_method") == "manual",
            )
        )
        if wish.get("confirm") == "true" and trade.state is TradeState.OPEN:
            if wish.get("payment_method") != GOOD_CARD:
                self.decline(trade)
                return self._problem(402, "card_declined", payment_intent=self._intent(trade))
            self.approve(trade)
        return web.json_response(self._intent(trade))

    def _move(self, trade: Trade, verb: str) -> web.Response:
        try:
            if verb == "capture":
                self.capture(trade)
            else:
                self.close(trade)
        except Gone:
            return self._problem(400, "payment_intent_unexpected_state")
        return web.json_response(self._intent(trade))

    def _make_refund(self, wish: dict[str, str]) -> web.Response:
        trade = self.book.find(self.name, wish["payment_intent"])
        if trade is None:
            return self._problem(404, "resource_missing")
        if trade.refunded_ms is not None:
            return self._problem(400, "charge_already_refunded")
        try:
            self.refund(trade)
        except Gone:
            return self._problem(400, "payment_intent_unexpected_state")
        return web.json_response(self._refund(trade))

    async def _once(self, request: web.Request, call: Call) -> web.Response:
        self._check(request)
        key = request.headers.get("Idempotency-Key")
        if key is not None and key in self._answers:
            status, text = self._answers[key]
            return web.Response(status=status, text=text, content_type="application/json")
        response = call({name: str(text) for name, text in (await request.post()).items()})
        if key is not None:
            self._answers[key] = (response.status, response.text or "")
        return response

    def _check(self, request: web.Request) -> None:
        known = f"Bearer {self._keys.stripe_secret_key}"
        if request.headers.get("Authorization") != known or not request.headers.get(
            "Stripe-Version"
        ):
            raise web.HTTPUnauthorized(text='{"error":{}}', content_type="application/json")

    def _found(self, request: web.Request) -> Trade:
        trade = self.book.find(self.name, request.match_info["intent"])
        if trade is None:
            raise web.HTTPNotFound(
                text='{"error":{"code":"resource_missing"}}', content_type="application/json"
            )
        return trade

    def _problem(self, status: int, code: str, **more: object) -> web.Response:
        return web.json_response({"error": {"code": code, **more}}, status=status)

    # Its objects.

    def _intent(self, trade: Trade) -> dict[str, Any]:
        paid = trade.paid_ms is not None
        held = trade.state is TradeState.AUTHORIZED
        return {
            "id": trade.ref,
            "object": "payment_intent",
            "status": STATES[trade.state],
            "amount": trade.amount_minor,
            "amount_received": trade.amount_minor if paid else 0,
            "amount_capturable": trade.amount_minor if held else 0,
            "currency": trade.currency.lower(),
            "client_secret": f"{trade.ref}_secret_{trade.ref[3:]}",
            "metadata": {PAYMENT_ID: trade.number},
            "latest_charge": self._charge(trade) if paid or held else None,
        }

    def _charge(self, trade: Trade) -> dict[str, Any]:
        return {
            "id": f"ch_{trade.ref}",
            "object": "charge",
            "amount": trade.amount_minor,
            "amount_captured": trade.amount_minor if trade.paid_ms is not None else 0,
            "currency": trade.currency.lower(),
            "payment_intent": trade.ref,
            "refunded": trade.refunded_ms is not None,
            "created": (trade.paid_ms or trade.created_ms) // 1000,
            "metadata": {PAYMENT_ID: trade.number},
        }

    def _refund(self, trade: Trade) -> dict[str, Any]:
        done = not trade.is_refund_under_way(self.clock.now_ms())
        return {
            "id": f"re_{trade.ref}",
            "object": "refund",
            "amount": trade.amount_minor,
            "currency": trade.currency.lower(),
            "payment_intent": trade.ref,
            "status": "succeeded" if done else "pending",
            "created": (trade.refunded_ms or 0) // 1000,
            "metadata": {PAYMENT_ID: trade.number},
        }

    def _transactions(self, trade: Trade) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        if trade.paid_ms is not None:
            lines.append(_transaction("charge", trade, trade.paid_ms, self._charge(trade)))
        if trade.refunded_ms is not None:
            lines.append(_transaction("refund", trade, trade.refunded_ms, self._refund(trade)))
        return lines

    # Events.

    def sign_notice(self, trade: Trade, event_id: str, at_ms: int, mischief: Mischief) -> Signed:
        refunded = trade.refunded_ms is not None
        kind = KINDS[TradeState.REFUNDED if refunded else trade.state]
        event = {
            "id": event_id,
            "object": "event",
            "type": kind,
            "created": at_ms // 1000,
            "data": {"object": self._charge(trade) if refunded else self._intent(trade)},
        }
        body = json.dumps(event).encode()
        secret = self._keys.stripe_webhook_secret
        if mischief is Mischief.FORGE:
            secret = "whsec_forged"  # noqa: S105
        header = signature_header([secret], body, at_ms // 1000)
        if mischief is Mischief.TAMPER:
            body = body.replace(event_id.encode(), b"evt_tampered")
        return {HEADER: header, "Content-Type": "application/json"}, body


def _transaction(kind: str, trade: Trade, at_ms: int, source: dict[str, Any]) -> dict[str, Any]:
    sign = 1 if kind == "charge" else -1
    return {
        "id": f"txn_{kind}_{trade.ref}",
        "object": "balance_transaction",
        "type": kind,
        "amount": sign * trade.amount_minor,
        "currency": trade.currency.lower(),
        "created": int(datetime.fromtimestamp(at_ms / 1000, UTC).timestamp()),
        "source": source,
    }
