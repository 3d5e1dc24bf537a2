"""Makes lines of a cart an order: one checkout, one order, of one sale or of the shop.

Ordinary stock is in Postgres: all of it is one transaction. A sale's units are taken by the engine in
Redis, between two transactions; see sale_checkout.
"""

import hashlib
import hmac
from typing import Final, NamedTuple

import asyncpg
import msgspec

from api.cart.basket import Buyer, bill_of, buyer_of, holds, lock_ordinary_basket, read_basket
from api.cart.bill import ASKED_FOR, Bill, check_ready
from api.cart.checkouts import (
    DROPPED,
    STARTED,
    Checkout,
    find_checkout,
    place_checkout,
    start_checkout,
)
from api.cart.sale_checkout import Held, finish_sale, screen
from api.cart.store import Owner, take_bought
from api.cart.wishes import CheckoutBody
from api.front import Front
from api.moments import now_of
from api.problems import Code, Refusal
from api.promotions.store import redeem
from engine.admission.access import Verdict
from engine.errors import Conflict
from engine.model import SHOP, Money, OrderStatus, make_reservation_id
from engine.sales.sale import epoch_ms
from engine.shelf import ShelfSoldOut, Wish
from engine.store.database import Connection, postgres_errors

_PURPOSE: Final = b"doorbuster checkout 1:"
ATTEMPTS_MAX: Final = 3  # Another request with the same key may come between.


class CheckoutCall(NamedTuple):
    """What a checkout needs of a request."""

    user_id: str
    key: str
    wishes: CheckoutBody
    language: str | None  # null: the account's
    queue_ticket: bytes | None
    address: str  # from where the call comes

    @property
    def request_hash(self) -> bytes:
        return hashlib.blake2b(msgspec.json.encode(self.wishes), digest_size=16).digest()


class CheckedOut(NamedTuple):
    """The order that a cart became. `replayed`: an earlier request made it."""

    checkout: Checkout
    status: OrderStatus
    reserved_until_ms: int
    replayed: bool = False


async def check_out(front: Front, call: CheckoutCall) -> CheckedOut:
    """The order, made now or by an earlier request with the same key.

    Raises Refusal or Conflict; nothing is held and nothing redeemed then, unless the outcome is said
    to be unknown: the same request finds out.
    """
    for _ in range(ATTEMPTS_MAX):
        earlier = await _find(front, call)
        if earlier is None or earlier.state == DROPPED:
            made = await _begin_or_yield(front, call)
            if isinstance(made, Checkout):
                return await _finish_sale(front, call, made, began=True)
        elif earlier.request_hash != call.request_hash:
            raise Refusal(Code.IDEMPOTENCY_MISMATCH)
        elif earlier.state == STARTED:
            return await _finish_sale(front, call, earlier, began=False)
        else:
            return await _made_before(front, earlier)
        if made is not None:
            return made
    raise Refusal(Code.UNAVAILABLE)


async def _begin_or_yield(front: Front, call: CheckoutCall) -> CheckedOut | Checkout | None:
    """As `_begin`; what another request with the same key took is no reason to refuse this one."""
    try:
        return await _begin(front, call)
    except (Refusal, Conflict):
        earlier = await _find(front, call)
        if earlier is None or earlier.state == DROPPED:
            raise
        return None
    except asyncpg.DeadlockDetectedError:
        return None  # A batch of payments paid, cancelled and refunded orders: its locks go round.


async def _begin(front: Front, call: CheckoutCall) -> CheckedOut | Checkout | None:
    """An order of the shop, or the checkout of a sale that is to be finished; None: another request
    was first, with the same key or of the same cart."""
    owner = Owner.user(call.user_id)
    buyer = await buyer_of(front, call.user_id, call.wishes)
    basket = await read_basket(front, owner, call.wishes)
    _check_rules(front, call, basket.sale_id)
    if basket.sale_id == SHOP:
        return await _order_ordinary(front, call, buyer)
    await screen(front, call.user_id, call.queue_ticket, basket)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            # Whoever checks the same lines out at the same moment finds them gone after this.
            if not await holds(connection, owner, basket):
                return None
            bill = await bill_of(connection, front, basket, buyer, states=ASKED_FOR)
            checkout = _checkout(front, call, bill)
            if not await start_checkout(connection, checkout):
                return None
            await _redeem(connection, checkout, bill)
            await _take_bought(connection, front, checkout)
    return checkout


async def _order_ordinary(front: Front, call: CheckoutCall, buyer: Buyer) -> CheckedOut | None:
    owner = Owner.user(call.user_id)
    wishes = msgspec.structs.replace(call.wishes, sale_id=SHOP)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            # Whoever checks the same cart out at the same moment finds it empty after this.
            basket = await lock_ordinary_basket(connection, front, owner, wishes)
            bill = await bill_of(connection, front, basket, buyer)
            checkout = _checkout(front, call, bill)
            if not await start_checkout(connection, checkout):
                return None
            # Units before coupons and points: so go the locks everywhere.
            placed = await front.engine.shelf.place(connection, _wish(checkout))
            if isinstance(placed, ShelfSoldOut):
                raise Refusal(Code.SOLD_OUT, f"Too few units of {placed.sku} are left.")
            await _redeem(connection, checkout, bill)
            await _take_bought(connection, front, checkout)
            await place_checkout(connection, SHOP, checkout.reservation_id)
    return CheckedOut(checkout, placed.status, epoch_ms(placed.reserved_until))


async def _finish_sale(
    front: Front, call: CheckoutCall, checkout: Checkout, *, began: bool
) -> CheckedOut:
    key = _reservation_key(front, call)
    held = await finish_sale(front, checkout, key, call.queue_ticket, began=began)
    return CheckedOut(checkout, held.status, held.until_ms, replayed=not began)


async def _made_before(front: Front, checkout: Checkout) -> CheckedOut:
    """The order as it is now. One that is on its way to Postgres is in Redis."""
    with postgres_errors():
        row = await front.engine.pool.fetchrow(
            "SELECT status, reserved_until FROM orders WHERE sale_id = $1 AND reservation_id = $2",
            checkout.sale_id,
            checkout.reservation_id,
        )
    if row is not None:
        until_ms = epoch_ms(row["reserved_until"])
        return CheckedOut(checkout, OrderStatus(row["status"]), until_ms, replayed=True)
    found = await front.engine.inventory.reservation(
        checkout.sale_id, checkout.user_id, checkout.reservation_id
    )
    if found is None:
        raise Refusal(Code.UNAVAILABLE, "The order is being stored; ask again in a moment.")
    held = Held.of(found.state, found.reserved_until_ms)
    return CheckedOut(checkout, held.status, held.until_ms, replayed=True)


def _checkout(front: Front, call: CheckoutCall, bill: Bill) -> Checkout:
    """The terms of a bill that can become an order. Raises Refusal."""
    check_ready(bill, call.wishes)
    total = Money(bill.quote.total_minor, bill.quote.currency)
    if call.wishes.total not in {None, total}:
        raise Refusal(Code.TOTAL_CHANGED)
    address = bill.destination.address if bill.destination else None
    key = _reservation_key(front, call)
    return Checkout(
        sale_id=bill.sale_id,
        reservation_id=make_reservation_id(bill.sale_id, call.user_id, key),
        user_id=call.user_id,
        idempotency_key=call.key,
        request_hash=call.request_hash,
        amount_minor=total.amount_minor,
        currency=total.currency,
        quote=bill.as_told(),
        address=msgspec.to_builtins(address),
        shipping_method=bill.chosen.method_id if bill.chosen else None,
        language=call.language,
        redeems=bill.redeems,
        state=STARTED,
    )


def _reservation_key(front: Front, call: CheckoutCall) -> str:
    """The key by which the units are reserved. Nobody else can make it: what a buyer reserves without
    a checkout, at list price, is never taken for a checkout's."""
    assert front.engine.settings.secret is not None
    secret = front.engine.settings.secret.encode()
    return "checkout-" + hmac.digest(secret, _PURPOSE + call.key.encode(), "sha256").hex()


def _wish(checkout: Checkout) -> Wish:
    return Wish(
        checkout.reservation_id,
        checkout.user_id,
        checkout.units,
        checkout.amount_minor,
        checkout.currency,
    )


async def _redeem(connection: Connection, checkout: Checkout, bill: Bill) -> None:
    await redeem(
        connection,
        user_id=checkout.user_id,
        sale_id=checkout.sale_id,
        reservation_id=checkout.reservation_id,
        quote=bill.quote,
    )


async def _take_bought(connection: Connection, front: Front, checkout: Checkout) -> None:
    owner, at = Owner.user(checkout.user_id), now_of(front.engine.clock)
    await take_bought(connection, owner, checkout.sale_id, checkout.units, at)


def _check_rules(front: Front, call: CheckoutCall, sale_id: str) -> None:
    """The operator's rules for this sale; those for all of them were asked at the door."""
    access = front.engine.access
    if access.is_empty:
        return
    if access.verdict(call.user_id, call.address, sale_id) is Verdict.DENY:
        raise Refusal(Code.FORBIDDEN, "The operator lets this client in no more.")


async def _find(front: Front, call: CheckoutCall) -> Checkout | None:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            return await find_checkout(connection, call.user_id, call.key)
