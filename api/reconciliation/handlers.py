"""The calls on reconciliations. The worker makes them; here they are asked for and shown."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal, time_text
from api.front import Front
from api.paging import CURSOR_LENGTH_MAX, PAGE_DEFAULT, PAGE_MAX, cursor, cursor_text
from api.problems import Code, FieldError, Refusal, invalid
from api.queries import read_query
from api.reconciliation.store import KeptDifference, Reconciliation, Reconciliations
from api.routing import Route
from api.spec import LOCATION, Access, Spec
from engine.sales.sale import epoch_ms

ID_MAX: Final = 2**63 - 1
DAY_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str, msgspec.Meta(max_length=CURSOR_LENGTH_MAX)]


class ReconcileBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which provider's statement of which of its days."""

    provider: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    day: Annotated[str, msgspec.Meta(pattern=DAY_PATTERN)]


class ReconciliationBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A comparison, wanted, done or failed. `error` of one that is wanted: why it is tried again."""

    reconciliation_id: str
    provider: str
    day: str
    state: str
    asked_by: str
    created_at: str
    lines: int | None = None
    differences: int | None = None
    error: str | None = None
    finished_at: str | None = None


class ReconciliationsPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Newest first."""

    reconciliations: list[ReconciliationBody]
    next: str | None = None


class DifferenceBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to look at: what is booked here and what there."""

    kind: str
    payment_id: str
    provider_ref: str | None = None
    ours: dict[str, Any] | None = None
    theirs: dict[str, Any] | None = None


class ReconciliationDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """A comparison with a page of its differences."""

    reconciliation: ReconciliationBody
    found: list[DifferenceBody]
    next: str | None = None


class ListQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one provider, or of all."""

    provider: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    limit: Limit = PAGE_DEFAULT
    after: Cursor | None = None


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of differences."""

    limit: Limit = PAGE_DEFAULT
    after: Cursor | None = None


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The number of a page's last entry."""

    number: Annotated[int, msgspec.Meta(ge=0, le=ID_MAX)]


_decoder: Final = msgspec.json.Decoder(ReconcileBody)
_end_decoder: Final = msgspec.json.Decoder(PageEnd)


async def want_reconciliation(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _decoder)
    day = _over(front, body)
    wanted = await Reconciliations(front.engine.pool).want(
        body.provider, day, front.caller(request).user_id
    )
    where = f"/v1/admin/reconciliations/{wanted.reconciliation_id}"
    return personal(_body(wanted), 202, ("Location", where))


async def list_reconciliations(front: Front, request: web.Request) -> Answer:
    query = read_query(request, ListQuery)
    end = cursor(request, _end_decoder)
    found = await Reconciliations(front.engine.pool).list(
        query.provider, end.number if end else None, query.limit
    )
    more = len(found) == query.limit
    after = cursor_text(PageEnd(found[-1].reconciliation_id)) if more else None
    return personal(ReconciliationsPage([_body(one) for one in found], after))


async def show_reconciliation(front: Front, request: web.Request) -> Answer:
    query = read_query(request, PageQuery)
    end = cursor(request, _end_decoder)
    book = Reconciliations(front.engine.pool)
    number = _number(request.match_info["reconciliation"])
    kept = await book.find(number)
    if kept is None:
        raise Refusal(Code.NOT_FOUND)
    found = await book.differences(number, end.number if end else 0, query.limit)
    after = cursor_text(PageEnd(found[-1].number)) if len(found) == query.limit else None
    return personal(ReconciliationDetail(_body(kept), [_difference(one) for one in found], after))


def _over(front: Front, body: ReconcileBody) -> date:
    """The day, if the provider is known and it is over there. Raises Refusal."""
    provider = front.providers.get(body.provider)
    if provider is None:
        known = ", ".join(sorted(front.providers)) or "none"
        raise Refusal.of(invalid([FieldError("provider", f"must be one of {known}")]))
    try:
        day = date.fromisoformat(body.day)
    except ValueError:
        raise Refusal.of(invalid([FieldError("day", "is no day")])) from None
    now = datetime.fromtimestamp(front.engine.clock.now_ms() / 1000, UTC)
    if day >= (now + timedelta(hours=provider.bill_offset_hours)).date() or day.year < 2000:
        raise Refusal.of(invalid([FieldError("day", "must be over, and of this century")]))
    return day


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= ID_MAX):
        raise Refusal(Code.NOT_FOUND)
    return int(text)


def _body(kept: Reconciliation) -> ReconciliationBody:
    return ReconciliationBody(
        str(kept.reconciliation_id),
        kept.provider,
        kept.day.isoformat(),
        kept.state,
        kept.asked_by,
        time_text(epoch_ms(kept.created_at)),
        kept.lines,
        kept.differences,
        kept.error,
        None if kept.finished_at is None else time_text(epoch_ms(kept.finished_at)),
    )


def _difference(kept: KeptDifference) -> DifferenceBody:
    return DifferenceBody(kept.kind, kept.payment_id, kept.provider_ref, kept.ours, kept.theirs)


_TAG: Final = "Admin: reconciliation"
_WANT: Final = Spec(
    tag=_TAG,
    summary="Compare a provider's statement of a day with the payments here",
    description="202: the worker fetches and compares it. Every day's is compared by itself.",
    body=ReconcileBody,
    answers={202: ReconciliationBody},
    tells={202: (LOCATION,)},
)
_LIST: Final = Spec(
    tag=_TAG,
    summary="Reconciliations",
    description="Newest first.",
    query=ListQuery,
    answers={200: ReconciliationsPage},
)
_SHOW: Final = Spec(
    tag=_TAG,
    summary="What a reconciliation found",
    description="`missing_here`, `missing_there`, `amount`, `currency`, `status` or `refund` each.",
    query=PageQuery,
    answers={200: ReconciliationDetail},
    codes=(Code.NOT_FOUND,),
)

ROUTES: Final = (
    Route(
        "POST",
        "/v1/admin/reconciliations",
        want_reconciliation,
        access=Access.OPERATOR,
        spec=_WANT,
    ),
    Route(
        "GET",
        "/v1/admin/reconciliations",
        list_reconciliations,
        access=Access.SUPPORT,
        spec=_LIST,
    ),
    Route(
        "GET",
        "/v1/admin/reconciliations/{reconciliation}",
        show_reconciliation,
        access=Access.SUPPORT,
        spec=_SHOW,
    ),
)
