"""The calls of operators and support on everybody's payments."""

from datetime import UTC, datetime
from importlib.resources import files
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal, time_text
from api.front import Front
from api.paging import CURSOR_LENGTH_MAX, PAGE_DEFAULT, PAGE_MAX, cursor, cursor_text
from api.problems import Code, FieldError, Refusal, invalid
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Spec
from engine.model import Money, PaymentStatus, parse_public_id, public_id
from engine.sales.sale import epoch_ms
from engine.store.database import postgres_errors

LIST_PAYMENTS: Final = (files("api.payments") / "list_payments.sql").read_text("utf-8")

Time = Annotated[datetime, msgspec.Meta(tz=True)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class PaymentsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which payments. Times are those at which they were made."""

    provider: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    status: PaymentStatus | None = None
    user: Text | None = None
    order: Text | None = None
    since: Time | None = None
    until: Time | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: Annotated[str, msgspec.Meta(max_length=CURSOR_LENGTH_MAX)] | None = None


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last payment of a page."""

    created_at: Time
    payment_id: Text


class AnyPayment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A payment as operators see it. `by_engine`: a sale's own capture."""

    payment_id: str
    order_id: str
    user_id: str
    provider: str
    status: str
    amount: Money
    by_engine: bool
    created_at: str
    updated_at: str
    provider_ref: str | None = None
    detail: str | None = None
    captured_at: str | None = None
    refunded_at: str | None = None


class PaymentsPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Newest first."""

    payments: list[AnyPayment]
    next: str | None = None


_end_decoder: Final = msgspec.json.Decoder(PageEnd)


async def list_payments(front: Front, request: web.Request) -> Answer:
    query = read_query(request, PaymentsQuery)
    end = cursor(request, _end_decoder)
    sale_id, reservation_id = (None, None) if query.order is None else _ids(query.order)
    with postgres_errors():
        rows = await front.engine.pool.fetch(
            LIST_PAYMENTS,
            query.provider,
            None if query.status is None else query.status.value,
            query.user,
            sale_id,
            reservation_id,
            _fit("until", query.until),
            None if end is None else _fit("after", end.created_at),
            None if end is None else end.payment_id,
            _fit("since", query.since),
            query.limit,
        )
    more = len(rows) == query.limit
    last = cursor_text(PageEnd(rows[-1]["created_at"], rows[-1]["payment_id"])) if more else None
    return personal(PaymentsPage([_body(row) for row in rows], last))


def _ids(order: str) -> tuple[str, str]:
    """Raises Refusal."""
    ids = parse_public_id(order)
    if ids is None:
        raise Refusal.of(invalid([FieldError("order", "is no id of an order")]))
    return ids


def _fit(name: str, time: datetime | None) -> datetime | None:
    """Raises Refusal for a time that is beyond the calendar in UTC."""
    try:
        return None if time is None else time.astimezone(UTC)
    except (OverflowError, ValueError):
        raise Refusal.of(invalid([FieldError(name, "is beyond the calendar")])) from None


def _body(row: Any) -> AnyPayment:
    return AnyPayment(
        row["payment_id"],
        public_id(row["sale_id"], row["reservation_id"]),
        row["user_id"],
        row["provider"],
        row["status"],
        Money(row["amount_minor"], row["currency"]),
        row["by_engine"],
        time_text(epoch_ms(row["created_at"])),
        time_text(epoch_ms(row["updated_at"])),
        row["provider_ref"],
        row["detail"],
        _time(row["captured_at"]),
        _time(row["refunded_at"]),
    )


def _time(time: datetime | None) -> str | None:
    return None if time is None else time_text(epoch_ms(time))


_LIST: Final = Spec(
    tag="Admin: payments",
    summary="Everybody's payments",
    description="Newest first. Refund one with POST /v1/admin/payments/{payment}/refunds.",
    query=PaymentsQuery,
    answers={200: PaymentsPage},
    codes=(Code.NOT_FOUND,),  # `order` is no order's id.
)

ROUTES: Final = (
    Route("GET", "/v1/admin/payments", list_payments, access=Access.SUPPORT, spec=_LIST),
)
