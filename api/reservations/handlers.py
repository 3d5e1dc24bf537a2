"""The calls on reservations: make one, look at it, give it back."""

from typing import Final, cast

import msgspec
from aiohttp import web

from api.answers import Answer, personal, time_text
from api.front import Front, ids_in, order_ids, ticket_of
from api.orders.store import Order, OrderBody, OrderBook, order_body
from api.problems import Code, Refusal
from api.reservations.decision import ReservationBody, ReserveBody, ReserveCall, reserve
from api.routing import Route
from api.spec import IDEMPOTENCY_KEY, LOCATION, Access, Param, Spec
from engine.admission.limit import Priority
from engine.errors import StoreUnavailable, UnknownReservation
from engine.model import (
    SALE_ID,
    STATE_OF_ORDER,
    Items,
    OrderStatus,
    Reservation,
    ReservationState,
    items_from_text,
    public_id,
)

RESERVE_PREFIX: Final = "/v1/sales/"
RESERVE_SUFFIX: Final = "/reservations"

QUEUE_TICKET: Final = Param(
    "Queue-Ticket", "The ticket of the sale's waiting room, if it has one that is on."
)


class ReservationShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reservation, with its order once there is one."""

    reservation_id: str
    sale_id: str
    items: Items
    status: str
    reserved_until: str
    order: OrderBody | None = None


def hot_sale_id(method: str, path: str) -> str | None:
    """The sale of a reserve call, read from the raw request line; None for any other call."""
    if method == "POST" and path.startswith(RESERVE_PREFIX) and path.endswith(RESERVE_SUFFIX):
        sale_id = path[len(RESERVE_PREFIX) : -len(RESERVE_SUFFIX)]
        return sale_id if SALE_ID.fullmatch(sale_id) else None
    return None


async def make_reservation(front: Front, request: web.BaseRequest) -> Answer:
    sale_id = _sale_id(request)
    identity = front.caller(request, sale_id)
    body = await front.bodies.raw(request)
    headers = request.headers
    answer = await reserve(
        front,
        ReserveCall(
            identity.user_id,
            sale_id,
            headers.get("Idempotency-Key"),
            headers.get("Content-Type"),
            body,
            ticket_of(request),
        ),
    )
    front.counts.outcomes[answer.label] += 1
    return answer


async def show_reservation(front: Front, request: web.Request) -> Answer:
    authorization = front.browser.authorization(request)
    address = front.address(request)
    return await reservation_shown(front, authorization, address, request.match_info["reservation"])


async def reservation_shown(
    front: Front, authorization: str | None, address: str, name: str
) -> Answer:
    """The reservation of this public id, to its buyer. Raises Refusal."""
    identity = front.caller_by(authorization, address)
    sale_id, reservation_id = ids_in(name)
    try:
        order = await OrderBook(front.engine.pool).find(sale_id, reservation_id)
    except StoreUnavailable:
        order = None  # Buyers who ask what became of a click are answered all the same.
    if order is not None:
        if order.user_id != identity.user_id:
            raise Refusal(Code.NOT_FOUND)
        return personal(_with_order(order))
    # Not drained yet, or there is none: Redis knows.
    found = await front.engine.inventory.reservation(sale_id, identity.user_id, reservation_id)
    if found is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(_without_order(sale_id, found))


async def release_reservation(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    sale_id, reservation_id = order_ids(request, "reservation")
    await front.bodies.none(request)
    engine = front.engine
    await engine.orders.cancel(sale_id, reservation_id, identity.user_id)
    order = await OrderBook(engine.pool).find(sale_id, reservation_id)
    if order is None:
        raise UnknownReservation(reservation_id)
    return personal(_with_order(order))


def _sale_id(request: web.BaseRequest) -> str:
    if type(request) is web.BaseRequest:  # Straight from the protocol: `hot_sale_id` found it fit.
        return request.raw_path[len(RESERVE_PREFIX) : -len(RESERVE_SUFFIX)]
    return cast("web.Request", request).match_info["sale"]


def _without_order(sale_id: str, reservation: Reservation) -> ReservationBody:
    return ReservationBody(
        reservation_id=public_id(sale_id, reservation.reservation_id),
        sale_id=sale_id,
        items=items_from_text(reservation.items_text),
        status=reservation.state.value,
        reserved_until=time_text(reservation.reserved_until_ms),
    )


def _with_order(order: Order) -> ReservationShown:
    body = order_body(order)
    state: ReservationState = STATE_OF_ORDER[OrderStatus(order.status)]
    return ReservationShown(
        reservation_id=body.reservation_id,
        sale_id=order.sale_id,
        items=body.items,
        status=state.value,
        reserved_until=body.reserved_until,
        order=body,
    )


ROUTES = (
    Route(
        "POST",
        "/v1/sales/{sale}/reservations",
        make_reservation,
        priority=Priority.RESERVE,
        access=Access.SELF,
        spec=Spec(
            tag="Reservations",
            summary="Reserve units",
            description=(
                "All SKUs or none. The same key with the same items is answered the same for the "
                "whole sale, so repeat whatever was not answered. Pay before `reserved_until`."
            ),
            body=ReserveBody,
            headers=(IDEMPOTENCY_KEY._replace(required=True), QUEUE_TICKET),
            answers={200: ReservationBody, 201: ReservationBody},
            tells={
                200: (
                    Param("Location", "The reservation.", required=True),
                    Param("Idempotent-Replayed", "`true`: an earlier call made it.", required=True),
                ),
                201: (LOCATION,),
            },
            codes=(
                Code.TICKET_REQUIRED,
                Code.TICKET_INVALID,
                Code.UNKNOWN_SKU,
                Code.SOLD_OUT,
                Code.ALL_RESERVED,
                Code.LIMIT_REACHED,
                Code.SALE_ENDED,
                Code.IDEMPOTENCY_MISMATCH,
                Code.NOT_STARTED,
                Code.SALE_PAUSED,
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/reservations/{reservation}",
        show_reservation,
        priority=Priority.PAYMENT,
        access=Access.SELF,
        spec=Spec(
            tag="Reservations",
            summary="What became of a reservation",
            description="The order is there once the reservation is stored, mostly within a second.",
            answers={200: ReservationShown},
        ),
    ),
    Route(
        "DELETE",
        "/v1/reservations/{reservation}",
        release_reservation,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
        spec=Spec(
            tag="Reservations",
            summary="Give reserved units back",
            description="Releasing again is fine. What is paid for is cancelled by a refund.",
            answers={200: ReservationShown},
            codes=(Code.NOT_CANCELLABLE,),
        ),
    ),
)
