"""Draws up what a crowd will do: who clicks on what, when, and who clicks twice. No I/O.

The same settings and seed always give the same plan.
"""

import random
from collections.abc import Mapping

import msgspec


class PlanSettings(msgspec.Struct, frozen=True):
    """A crowd in numbers. Shares are fractions of the buyers."""

    buyers: int
    seed: int
    units: Mapping[str, int]  # SKU → units: demand is spread in proportion to them
    rate: float | None = None  # first clicks per second; None: all at once
    per_user_max: int = 2
    doubles: float = 0.1  # want two units of their SKU
    carts: float = 0.05  # want one unit each of two SKUs
    duplicates: float = 0.05  # click twice at the same moment: same key, another connection
    retries: float = 0.05  # ask again later with the same key
    greedy: float = 0.02  # want the same once more, with a new key: the limit's business
    # When retries and the greedy come: after the first answer has usually arrived.
    later_seconds: tuple[float, float] = (0.2, 2.0)


class Click(msgspec.Struct, gc=False):
    """One request that a buyer means to make. Repeats after a failure are not clicks."""

    at_s: float  # intended, in seconds after the start
    buyer: int  # index of the buyer's token
    key: bytes  # Idempotency-Key
    body: bytes
    request: bytes = b""  # the whole of it, once the crowd has put it together
    attempts: int = 0  # requests sent so far


def draw_plan(settings: PlanSettings) -> list[Click]:
    """All clicks, in the order in which they are to be made."""
    rng = random.Random(settings.seed)
    wishes = _Wishes(settings, rng)
    clicks: list[Click] = []
    for buyer in range(settings.buyers):
        at_s = buyer / settings.rate if settings.rate else 0.0
        body = wishes.draw()
        clicks.append(click := Click(at_s, buyer, _draw_key(rng), body))
        if rng.random() < settings.duplicates:
            clicks.append(Click(at_s, buyer, click.key, body))
        later_s = at_s + rng.uniform(*settings.later_seconds)
        if rng.random() < settings.retries:
            clicks.append(Click(later_s, buyer, click.key, body))
        if rng.random() < settings.greedy:
            clicks.append(Click(later_s, buyer, _draw_key(rng), body))
    clicks.sort(key=lambda click: click.at_s)
    return clicks


class _Wishes:
    """Draws request bodies; equal wishes share one."""

    def __init__(self, settings: PlanSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._skus = list(settings.units)
        self._weights = list(settings.units.values())
        self._bodies: dict[tuple[tuple[str, int], ...], bytes] = {}

    def draw(self) -> bytes:
        drawn = self._rng.random()
        sku = self._draw_sku()
        settings = self._settings
        if settings.per_user_max < 2:
            return self._body((sku, 1))
        if drawn < settings.doubles:
            return self._body((sku, 2))
        if drawn < settings.doubles + settings.carts and (other := self._draw_sku()) != sku:
            return self._body((sku, 1), (other, 1))
        return self._body((sku, 1))

    def _draw_sku(self) -> str:
        return self._rng.choices(self._skus, self._weights)[0]

    def _body(self, *wish: tuple[str, int]) -> bytes:
        body = self._bodies.get(wish)
        if body is None:
            items = [{"sku": sku, "quantity": quantity} for sku, quantity in wish]
            body = self._bodies[wish] = msgspec.json.encode({"items": items})
        return body


def _draw_key(rng: random.Random) -> bytes:
    return b"%032x" % rng.getrandbits(128)
