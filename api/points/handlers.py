"""The calls on points: a buyer's own, and operators' rules, grants and deductions."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front
from api.moments import now_of
from api.paging import PageQuery, cursor, cursor_text
from api.points import store
from api.points.bodies import (
    Balance,
    DeductionBody,
    GrantBody,
    LinesPage,
    Rule,
    RuleBody,
    Rules,
    line_of,
    rule_of,
)
from api.pricing.money import is_currency
from api.problems import Code, Refusal
from api.queries import read_query
from api.reservations.decision import check_key
from api.routing import Route
from api.spec import IDEMPOTENCY_KEY, Access, Spec
from engine.store.database import postgres_errors

TAG: Final = "Points"
ADMIN_TAG: Final = "Points"


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last line of a page."""

    line_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


_end_decoder: Final = msgspec.json.Decoder(PageEnd)
_rule_decoder: Final = msgspec.json.Decoder(RuleBody)
_grant_decoder: Final = msgspec.json.Decoder(GrantBody)
_deduction_decoder: Final = msgspec.json.Decoder(DeductionBody)


async def show_points(front: Front, request: web.Request) -> Answer:
    return await _balance(front, front.caller(request).user_id)


async def list_lines(front: Front, request: web.Request) -> Answer:
    return await _lines(front, request, front.caller(request).user_id)


async def show_points_of(front: Front, request: web.Request) -> Answer:
    return await _balance(front, request.match_info["user"])


async def list_lines_of(front: Front, request: web.Request) -> Answer:
    return await _lines(front, request, request.match_info["user"])


async def grant_points(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _grant_decoder)
    user_id, actor, key = _subject(front, request)
    now = now_of(front.engine.clock)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            await store.grant(connection, actor, user_id, body, key=key, at=now)
    return await _balance(front, user_id)


async def deduct_points(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _deduction_decoder)
    user_id, actor, key = _subject(front, request)
    now = now_of(front.engine.clock)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            await store.deduct(connection, actor, user_id, body, key=key, at=now)
    return await _balance(front, user_id)


async def list_rules(front: Front, _: web.Request) -> Answer:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            rows = await store.list_rules(connection)
    return personal(Rules([rule_of(row) for row in rows]))


async def put_rule(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _rule_decoder)
    currency = request.match_info["currency"]
    if not is_currency(currency):
        raise Refusal(Code.NOT_FOUND, "There is no such currency in ISO 4217.")
    actor = front.caller(request).user_id
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            row = await store.put_rule(connection, actor, currency, body)
    return personal(rule_of(row))


async def remove_rule(front: Front, request: web.Request) -> Answer:
    await front.bodies.none(request)
    actor = front.caller(request).user_id
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            row = await store.remove_rule(connection, actor, request.match_info["currency"])
    if row is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(rule_of(row))


def _subject(front: Front, request: web.Request) -> tuple[str, str, str | None]:
    """Whose points, who changes them, and the key of the change. Raises Refusal."""
    key = request.headers.get("Idempotency-Key")
    return (
        request.match_info["user"],
        front.caller(request).user_id,
        None if key is None else check_key(key),
    )


async def _balance(front: Front, user_id: str) -> Answer:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            return personal(await store.balance_of(connection, user_id, now_of(front.engine.clock)))


async def _lines(front: Front, request: web.Request, user_id: str) -> Answer:
    query = read_query(request, PageQuery)
    end = cursor(request, _end_decoder)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            rows = await store.lines_of(
                connection, user_id, before=end.line_id if end else None, rows_max=query.limit
            )
    more = cursor_text(PageEnd(rows[-1]["line_id"])) if len(rows) == query.limit else None
    return personal(LinesPage([line_of(row) for row in rows], more))


ROUTES: Final = (
    Route(
        "GET",
        "/v1/points",
        show_points,
        access=Access.CALLER,
        spec=Spec(tag=TAG, summary="One's points, and which expire next", answers={200: Balance}),
    ),
    Route(
        "GET",
        "/v1/points/lines",
        list_lines,
        access=Access.CALLER,
        spec=Spec(
            tag=TAG,
            summary="Where one's points came from and went",
            answers={200: LinesPage},
            query=PageQuery,
        ),
    ),
    Route(
        "GET",
        "/v1/admin/points/rules",
        list_rules,
        access=Access.SUPPORT,
        spec=Spec(tag=ADMIN_TAG, summary="What points are worth", answers={200: Rules}),
    ),
    Route(
        "PUT",
        "/v1/admin/points/rules/{currency}",
        put_rule,
        spec=Spec(
            tag=ADMIN_TAG,
            summary="Say what paying in a currency earns, and what points are worth in it",
            answers={200: Rule},
            body=RuleBody,
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "DELETE",
        "/v1/admin/points/rules/{currency}",
        remove_rule,
        spec=Spec(
            tag=ADMIN_TAG,
            summary="Neither earn nor spend points in a currency any more",
            answers={200: Rule},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "GET",
        "/v1/admin/points/users/{user}",
        show_points_of,
        access=Access.SUPPORT,
        spec=Spec(tag=ADMIN_TAG, summary="A buyer's points", answers={200: Balance}),
    ),
    Route(
        "GET",
        "/v1/admin/points/users/{user}/lines",
        list_lines_of,
        access=Access.SUPPORT,
        spec=Spec(
            tag=ADMIN_TAG,
            summary="Where a buyer's points came from and went",
            answers={200: LinesPage},
            query=PageQuery,
        ),
    ),
    Route(
        "POST",
        "/v1/admin/points/users/{user}/grants",
        grant_points,
        spec=Spec(
            tag=ADMIN_TAG,
            summary="Give points",
            answers={200: Balance},
            body=GrantBody,
            headers=(IDEMPOTENCY_KEY,),
            codes=(Code.IDEMPOTENCY_MISMATCH,),
        ),
    ),
    Route(
        "POST",
        "/v1/admin/points/users/{user}/deductions",
        deduct_points,
        spec=Spec(
            tag=ADMIN_TAG,
            summary="Take points",
            answers={200: Balance},
            body=DeductionBody,
            headers=(IDEMPOTENCY_KEY,),
            codes=(Code.POINTS_SHORT, Code.IDEMPOTENCY_MISMATCH),
        ),
    ),
)
