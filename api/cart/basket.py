"""The lines that a quote or a checkout is about, with what they are now. Changes nothing."""

from typing import NamedTuple

from api.cart.bill import Bill, Destination, destination_of, make_bill
from api.cart.store import CartLine, Owner, read_cart
from api.cart.visits import currency_of
from api.cart.wares import COUNTED, Key, LineState, Ware, offers_of, wares
from api.cart.wishes import QuoteBody, check_wishes, lines_wanted
from api.front import Front
from api.moments import now_of
from engine.store.database import Connection, postgres_errors


class Basket(NamedTuple):
    """Lines of one group, at least one."""

    lines: list[CartLine]
    wares: dict[Key, Ware]

    @property
    def sale_id(self) -> str:
        return self.lines[0].sale_id


class Buyer(NamedTuple):
    """Who buys, if it is known, how, and to where it goes."""

    user_id: str | None
    wishes: QuoteBody
    destination: Destination | None


async def read_basket(front: Front, owner: Owner, wishes: QuoteBody) -> Basket:
    """Raises Refusal where nothing, or no single group, is meant."""
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            cart = await read_cart(connection, owner)
            lines = lines_wanted(cart, wishes)
            currency = currency_of(front, wishes.currency)
            known = await offers_of(
                front.engine, connection, [line.key for line in lines], currency
            )
    # Without the connection: sales that are not remembered are read with one.
    found = await wares(front.engine, [line.key for line in lines], known, currency)
    return Basket(lines, found)


async def holds(connection: Connection, owner: Owner, basket: Basket) -> bool:
    """Whether the cart still has these lines; if so, it keeps them until the transaction ends."""
    cart = await read_cart(connection, owner, lock=True)
    return set(basket.lines) <= set(cart.lines)


async def lock_ordinary_basket(
    connection: Connection, front: Front, owner: Owner, wishes: QuoteBody
) -> Basket:
    """Of the shop, whose prices and units are in Postgres; nobody changes the cart meanwhile."""
    cart = await read_cart(connection, owner, lock=True)
    lines = lines_wanted(cart, wishes)
    currency = currency_of(front, wishes.currency)
    keys = [line.key for line in lines]
    known = await offers_of(front.engine, connection, keys, currency)
    return Basket(lines, await wares(front.engine, keys, known, currency))


async def buyer_of(front: Front, user_id: str | None, wishes: QuoteBody) -> Buyer:
    """Raises Refusal for an address that is not the buyer's."""
    check_wishes(wishes)
    destination = await destination_of(front.engine.pool, user_id, wishes)
    return Buyer(user_id, wishes, destination)


async def bill_of(
    connection: Connection,
    front: Front,
    basket: Basket,
    buyer: Buyer,
    *,
    states: frozenset[LineState] = COUNTED,
) -> Bill:
    """What the basket costs this buyer now: the lines in these states. Raises Refusal."""
    return await make_bill(
        connection,
        basket.lines,
        basket.wares,
        buyer.wishes,
        buyer.destination,
        user_id=buyer.user_id,
        currency=currency_of(front, buyer.wishes.currency),
        at=now_of(front.engine.clock),
        states=states,
    )
