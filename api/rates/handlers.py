"""The calls on exchange rates: read by everybody, written down by operators."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal, public
from api.catalogue.document import CurrencyText
from api.front import Front
from api.pricing.money import is_currency
from api.problems import FieldError, Refusal, invalid
from api.queries import read_query
from api.rates.store import Rate, Rates, rate_text
from api.routing import Route
from api.spec import Access, Spec

RATES_MAX: Final = 200  # In one request: every currency there is.

# Ten digits before the point and ten behind it, as they are kept; not zero.
RateText = Annotated[str, msgspec.Meta(pattern=r"^(?=[0-9.]*[1-9])[0-9]{1,10}(?:\.[0-9]{1,10})?\Z")]
Source = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]{0,99}\Z")]


class RatesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of GET /v1/exchange-rates. `on` is a day, as 2026-11-11; today in UTC."""

    on: date | None = None
    base: CurrencyText | None = None
    quote: CurrencyText | None = None


class RateBody(msgspec.Struct, frozen=True):
    """1 unit of `base` is `rate` units of `quote` from `valid_on` on. A decimal number as text."""

    base: str
    quote: str
    valid_on: str
    rate: str
    source: str


class RatesBody(msgspec.Struct, frozen=True):
    """The newest rates that are valid on a day."""

    on: str
    rates: list[RateBody]


class PutRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rate, and who says so."""

    base: CurrencyText
    quote: CurrencyText
    valid_on: date
    rate: RateText
    source: Source

    def __post_init__(self) -> None:
        for currency in (self.base, self.quote):
            if not is_currency(currency):
                raise ValueError(f"{currency} is no currency of ISO 4217 that is in use")
        if self.base == self.quote:
            raise ValueError("base and quote are the same")


class PutRates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rates of a day, or of several."""

    rates: Annotated[tuple[PutRate, ...], msgspec.Meta(min_length=1, max_length=RATES_MAX)]

    def __post_init__(self) -> None:
        if len({(each.base, each.quote, each.valid_on) for each in self.rates}) < len(self.rates):
            raise ValueError("the same pair is there twice for a day")


class PutRatesBody(msgspec.Struct, frozen=True):
    """How many of the rates were not so before."""

    changed: int


_decoder: Final = msgspec.json.Decoder(PutRates)


async def show_rates(front: Front, request: web.Request) -> Answer:
    query = read_query(request, RatesQuery)
    for name in ("base", "quote"):
        currency = getattr(query, name)
        if currency is not None and not is_currency(currency):
            raise Refusal.of(invalid([FieldError(name, "is no currency of ISO 4217")]))
    today = datetime.fromtimestamp(front.engine.clock.now_ms() / 1000, UTC).date()
    day = query.on or today
    found = await Rates(front.engine.pool).valid_on(day, query.base, query.quote)
    return public(RatesBody(day.isoformat(), [_body(rate) for rate in found]))


async def put_rates(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _decoder)
    rates = [
        Rate(each.base, each.quote, each.valid_on, Decimal(each.rate), each.source)
        for each in body.rates
    ]
    actor = front.caller(request).user_id
    return personal(PutRatesBody(await Rates(front.engine.pool).put(rates, actor)))


def _body(rate: Rate) -> RateBody:
    text = rate_text(rate.rate)
    return RateBody(rate.base, rate.quote, rate.valid_on.isoformat(), text, rate.source)


ROUTES: Final = (
    Route(
        "GET",
        "/v1/exchange-rates",
        show_rates,
        access=Access.VISITOR,
        spec=Spec(
            tag="Catalogue",
            summary="Exchange rates that are valid on a day",
            answers={200: RatesBody},
            query=RatesQuery,
        ),
    ),
    Route(
        "PUT",
        "/v1/admin/exchange-rates",
        put_rates,
        access=Access.OPERATOR,
        spec=Spec(
            tag="Catalogue",
            summary="Write exchange rates down",
            description="A rate of the same pair and day is replaced; others stay, so that what was"
            " charged on a day can be understood later.",
            answers={200: PutRatesBody},
            body=PutRates,
        ),
    ),
)
