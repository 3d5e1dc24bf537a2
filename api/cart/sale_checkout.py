"""The part of a sale's checkout that is the engine's: units, taken after the terms were written.

The terms are there first, so that the order has the price that its buyer was told. Its lines are out
of the cart by then: nobody buys them twice. A checkout that is cut short is finished by its repetition
or by the sweeper, whichever comes first.
"""

from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from api.answers import Answer
from api.bodies import JSON_TYPE
from api.cart.basket import Basket
from api.cart.checkouts import PLACED, Checkout, drop_checkout, place_checkout
from api.cart.store import Owner, put_back, read_cart
from api.front import Front
from api.moments import now_of
from api.problems import Code, Refusal
from api.reservations.decision import ReserveCall, answer_to_refusal, reserve
from engine.core import Engine
from engine.errors import Conflict
from engine.inventory.queue import TICKET_MISSING
from engine.model import (
    STATE_OF_ORDER,
    Item,
    OrderStatus,
    ReservationState,
    items_to_text,
)
from engine.sales import Sale
from engine.sales.sale import epoch_ms
from engine.store.database import postgres_errors

GIVEN_UP: Final = "The checkout was given up meanwhile; begin another one."


class Held(NamedTuple):
    """Units of a sale that a checkout has."""

    status: OrderStatus
    until_ms: int

    @classmethod
    def of(cls, state: ReservationState, until_ms: int) -> "Held":
        status = next(order for order, meant in STATE_OF_ORDER.items() if meant is state)
        return cls(status, until_ms)


class _Told(msgspec.Struct):
    """What is to be known of a reservation's answer."""

    status: ReservationState
    reserved_until: datetime


async def screen(front: Front, user_id: str, ticket: bytes | None, basket: Basket) -> None:
    """Turns away who has no hope, before anything is written for him. Raises Refusal."""
    engine = front.engine
    sale = await engine.directory.get(basket.sale_id)
    if sale is None:
        raise Refusal(Code.UNKNOWN_SALE)
    items = tuple(Item(line.sku, line.quantity) for line in basket.lines)
    now_ms = engine.clock.now_ms()
    known = engine.memory.refusal(sale, user_id, items_to_text(items), now_ms)
    if known is not None:
        raise Refusal.of(answer_to_refusal(engine, sale, known))
    await _check_ticket(front, sale, user_id, ticket, now_ms)


async def _check_ticket(
    front: Front, sale: Sale, user_id: str, ticket: bytes | None, now_ms: int
) -> None:
    room = await front.room_of(sale)
    if room is None:
        return
    number = room.check(ticket, user_id, now_ms / 1000)
    if number == 0:
        raise front.ticket_refused(room, ticket, user_id)
    if number == TICKET_MISSING:
        raise Refusal.of(front.turn_refused(sale, ticket, user_id))


async def finish_sale(
    front: Front, checkout: Checkout, key: str, ticket: bytes | None, *, began: bool
) -> Held:
    """Takes the units, or finds that an earlier try did. Raises Refusal, Conflict.

    Refused, what was redeemed goes back at once if this request `began` the checkout. One that found
    it begun leaves that to whoever did, or to the sweeper: the units may be on their way.
    """
    held = await _reserve(front, checkout, key, ticket)
    if isinstance(held, Answer):
        if began and held.label != Code.UNAVAILABLE:
            await drop(front.engine, checkout)
        raise Refusal.of(held)
    if began and held.status is not OrderStatus.AWAITING_PAYMENT:
        # Units of a checkout with this key that was given up and undone: they are not taken again.
        await drop(front.engine, checkout)
        raise Conflict("conflict", GIVEN_UP)
    if not await place(front.engine, checkout):
        await _undo(front.engine, checkout)
    return held


async def _reserve(
    front: Front, checkout: Checkout, key: str, ticket: bytes | None
) -> Held | Answer:
    """The units, or why there are none; `unavailable`: it is unknown whether there are."""
    items = [Item(sku, quantity) for sku, quantity in checkout.units.items()]
    body = msgspec.json.encode({"items": items})
    answer = await reserve(
        front,
        ReserveCall(checkout.user_id, checkout.sale_id, key, JSON_TYPE, body, ticket),
    )
    front.counts.outcomes[answer.label] += 1
    if answer.status < 400:
        told = msgspec.json.decode(answer.body, type=_Told)
        return Held.of(told.status, epoch_ms(told.reserved_until))
    if answer.label == Code.UNAVAILABLE:
        return answer
    # A front refuses what is hopeless without asking Redis, where an earlier try may have units.
    found = await front.engine.inventory.reservation(
        checkout.sale_id, checkout.user_id, checkout.reservation_id
    )
    return answer if found is None else Held.of(found.state, found.reserved_until_ms)


async def place(engine: Engine, checkout: Checkout) -> bool:
    """The units are held: writes it down. Again it changes nothing; False if it was dropped."""
    order = (checkout.sale_id, checkout.reservation_id)
    with postgres_errors():
        async with engine.pool.acquire() as connection, connection.transaction():
            if await place_checkout(connection, *order):
                return True
            state = await connection.fetchval(
                "SELECT state FROM checkouts WHERE sale_id = $1 AND reservation_id = $2", *order
            )
    return bool(state == PLACED)


async def drop(engine: Engine, checkout: Checkout) -> bool:
    """No units are held: gives back, once, what was redeemed, and to the cart its lines."""
    owner = Owner.user(checkout.user_id)
    with postgres_errors():
        async with engine.pool.acquire() as connection, connection.transaction():
            # The cart before the checkout: so go the locks everywhere.
            await read_cart(connection, owner, lock=True)
            order = (checkout.sale_id, checkout.reservation_id)
            dropped = await drop_checkout(connection, *order)
            if dropped:
                await put_back(connection, owner, checkout.lines, now_of(engine.clock))
    return dropped


async def _undo(engine: Engine, checkout: Checkout) -> None:
    """The checkout was given up, and what it redeemed given back, before these units were taken."""
    await engine.orders.cancel(
        checkout.sale_id, checkout.reservation_id, checkout.user_id, "checkout_dropped"
    )
    raise Conflict("conflict", GIVEN_UP)
