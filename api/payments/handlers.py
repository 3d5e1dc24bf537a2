"""The calls on payments. The provider is called by the worker, never here."""

from typing import Any, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front, order_ids
from api.orders.store import OrderBook, PaymentRow, payment_body
from api.problems import Code, Refusal
from api.reservations.decision import check_key
from api.routing import Route
from api.spec import Access
from api.tokens import Identity, Role
from engine.admission.limit import Priority
from engine.errors import UnknownReservation
from engine.model import Money, ReservationState

PROVIDER_DEFAULT: Final = "sandbox"


class PayBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/orders/{id}/payments; `options` are the provider's business."""

    provider: str = PROVIDER_DEFAULT
    options: dict[str, Any] = {}


class RefundBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be refunded; nothing said means the whole payment."""

    amount: Money | None = None


_decoder: Final = msgspec.json.Decoder(PayBody)
_refund_decoder: Final = msgspec.json.Decoder(RefundBody)


async def start_payment(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    ids = order_ids(request, "order")
    body = await front.bodies.optional_json(request, _decoder, PayBody())
    if body.provider not in front.providers:
        known = ", ".join(sorted(front.providers)) or "none"
        raise Refusal(Code.INVALID_REQUEST, f"provider: must be one of {known}.")
    try:
        payment = await front.engine.payments.start(
            *ids, identity.user_id, body.provider, body.options, _key(front, request)
        )
    except UnknownReservation:
        await refuse_undrained(front, identity, *ids)
        raise
    shown = await _find(front, payment.payment_id)
    return personal(payment_body(shown), 201, ("Location", f"/v1/payments/{payment.payment_id}"))


async def show_payment(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    return personal(payment_body(await _visible(front, request, identity)))


async def ask_refund(front: Front, request: web.Request) -> Answer:
    """For the buyer and for operators. 202: the provider is asked by the worker."""
    identity = front.caller(request)
    payment = await _visible(front, request, identity)
    return await refund(front, request, payment.payment_id, identity.user_id)


async def refund(front: Front, request: web.Request, payment_id: str, actor: str) -> Answer:
    """A body may name the amount, to be safe; it must be the whole of it."""
    body = await front.bodies.optional_json(request, _refund_decoder, RefundBody())
    if body.amount is not None:
        payment = await _find(front, payment_id)
        if body.amount != Money(payment.amount_minor, payment.currency):
            raise Refusal(Code.INVALID_REQUEST, "amount: only the whole payment can be refunded.")
    await front.engine.payments.request_refund(payment_id, actor)
    return personal(payment_body(await _find(front, payment_id)), 202)


async def refuse_undrained(
    front: Front, identity: Identity, sale_id: str, reservation_id: str
) -> None:
    """Raises Refusal with a kinder word than 404 for a reservation whose order is on its way."""
    inventory = front.engine.inventory
    found = await inventory.reservation(sale_id, identity.user_id, reservation_id)
    if found is not None and found.state is ReservationState.RESERVED:
        raise Refusal(Code.UNAVAILABLE, "The order is being stored; ask again in a moment.")


def _key(front: Front, request: web.Request) -> str:
    """The caller's key; without one every call is a payment of its own."""
    key = request.headers.get("Idempotency-Key")
    return front.engine.ids.new("once") if key is None else check_key(key)


async def _visible(front: Front, request: web.Request, identity: Identity) -> PaymentRow:
    payment = await OrderBook(front.engine.pool).payment(request.match_info["payment"])
    if payment is None or not (
        payment.user_id == identity.user_id or identity.role is Role.OPERATOR
    ):
        raise Refusal(Code.NOT_FOUND)
    return payment


async def _find(front: Front, payment_id: str) -> PaymentRow:
    payment = await OrderBook(front.engine.pool).payment(payment_id)
    if payment is None:
        raise Refusal(Code.NOT_FOUND)
    return payment


ROUTES = (
    Route(
        "POST",
        "/v1/orders/{order}/payments",
        start_payment,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
    ),
    Route(
        "GET",
        "/v1/payments/{payment}",
        show_payment,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
    ),
    Route(
        "POST",
        "/v1/payments/{payment}/refunds",
        ask_refund,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
    ),
)
