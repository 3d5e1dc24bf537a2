"""Whose cart a request is about: a user's, or a guest's with a cookie. Merges the second into the first."""

from functools import cache
from typing import NamedTuple

from aiohttp import web

from api.cart.cookie import GuestCookies
from api.cart.store import Carts, Owner
from api.front import Front
from api.moments import now_of
from api.pricing.money import is_currency
from api.problems import FieldError, Refusal, invalid


class Visit(NamedTuple):
    """An owner, and the headers that the answer brings along."""

    owner: Owner
    headers: tuple[tuple[str, str], ...] = ()


async def visit_of(front: Front, request: web.Request, *, create: bool = False) -> Visit:
    """A user's cart, into which a guest's that was filled before is merged; or a guest's.

    A guest without a cookie has an empty cart, and with `create` a cookie from now on.
    """
    cookies = _cookies(front)
    guest_id = cookies.read(request)
    identity = front.visitor(request)
    if identity is not None:
        owner = Owner.user(identity.user_id)
        if guest_id is None:
            return Visit(owner)
        await Carts(front.engine.pool).merge(
            Owner.guest(guest_id), owner, now_of(front.engine.clock)
        )
        return Visit(owner, (cookies.clear(),))
    guest_id = guest_id or front.engine.ids.new("guest")
    return Visit(Owner.guest(guest_id), (cookies.write(guest_id),) if create else ())


def currency_of(front: Front, asked: str | None) -> str:
    """The currency that was asked for, or the shop's. Raises Refusal for none of ISO 4217."""
    if asked is not None and not is_currency(asked):
        raise Refusal.of(invalid([FieldError("currency", "is no currency of ISO 4217")]))
    return asked or front.engine.settings.currency_default


def _cookies(front: Front) -> GuestCookies:
    settings = front.engine.settings
    assert settings.secret is not None
    return _cookies_by(settings.secret, settings.cart_days)


@cache
def _cookies_by(secret: str, days: int) -> GuestCookies:
    return GuestCookies(secret, days)
