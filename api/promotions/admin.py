"""The calls under /v1/admin/promotions."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import NO_STORE, SECURITY_HEADERS, Answer, personal
from api.front import Front
from api.moments import Moment, check_moments, moment_text, now_of
from api.paging import PageQuery, cursor, cursor_text
from api.problems import Code, Refusal
from api.promotions import codes, offering
from api.promotions.bodies import (
    CodesBody,
    CodesMade,
    CouponShown,
    CouponsPage,
    PromotionBody,
    PromotionChange,
    PromotionShown,
    PromotionsPage,
    PromotionsQuery,
    RedemptionsPage,
    Revisions,
    RevisionShown,
    promotion_shown,
    redemption_shown,
)
from api.promotions.coupons import canonical
from api.promotions.terms import as_stored
from api.queries import read_query
from api.routing import Handler, Route
from api.spec import LOCATION, Access, Spec
from engine.model import RESERVATION_ID
from engine.store.database import Connection, postgres_errors

TAG: Final = "Promotions"
PATH: Final = "/v1/admin/promotions"

_body_decoder: Final = msgspec.json.Decoder(PromotionBody)
_change_decoder: Final = msgspec.json.Decoder(PromotionChange)
_codes_decoder: Final = msgspec.json.Decoder(CodesBody)


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last promotion or code of a page."""

    key: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")]


class RedemptionsEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last redemption of a page."""

    taken_at: Moment
    reservation_id: Annotated[str, msgspec.Meta(pattern=rf"^(?:{RESERVATION_ID.pattern})\Z")]

    def __post_init__(self) -> None:
        check_moments(self.taken_at)


_end_decoder: Final = msgspec.json.Decoder(PageEnd)
_moment_decoder: Final = msgspec.json.Decoder(RedemptionsEnd)


async def create_promotion(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _body_decoder)
    promotion_id = front.engine.ids.new("promo")
    actor, now = front.caller(request).user_id, now_of(front.engine.clock)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            await offering.add_promotion(connection, actor, promotion_id, body, now)
            shown = await _shown(connection, promotion_id)
    return personal(shown, 201, ("Location", f"{PATH}/{promotion_id}"))


async def change_promotion(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _change_decoder)
    promotion_id, actor = request.match_info["promotion"], front.caller(request).user_id
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            await offering.change_promotion(connection, actor, promotion_id, body)
            return personal(await _shown(connection, promotion_id))


async def activate_promotion(front: Front, request: web.Request) -> Answer:
    return await _set_active(front, request, active=True)


async def deactivate_promotion(front: Front, request: web.Request) -> Answer:
    return await _set_active(front, request, active=False)


async def _set_active(front: Front, request: web.Request, *, active: bool) -> Answer:
    await front.bodies.none(request)
    promotion_id, actor = request.match_info["promotion"], front.caller(request).user_id
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            await offering.set_active(connection, actor, promotion_id, active=active)
            return personal(await _shown(connection, promotion_id))


async def list_promotions(front: Front, request: web.Request) -> Answer:
    query = read_query(request, PromotionsQuery)
    end = cursor(request, _end_decoder)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            rows = await offering.list_promotions(
                connection,
                active=query.active,
                after=end.key if end else None,
                rows_max=query.limit,
            )
    more = cursor_text(PageEnd(rows[-1]["promotion_id"])) if len(rows) == query.limit else None
    return personal(PromotionsPage([promotion_shown(row) for row in rows], more))


async def show_promotion(front: Front, request: web.Request) -> Answer:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            return personal(await _shown(connection, request.match_info["promotion"]))


async def list_revisions(front: Front, request: web.Request) -> Answer:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            rows = await offering.list_revisions(connection, request.match_info["promotion"])
    if not rows:
        raise Refusal(Code.NOT_FOUND)
    shown = [
        RevisionShown(
            row["revision"], as_stored(row["terms"]), row["actor"], moment_text(row["at"])
        )
        for row in rows
    ]
    return personal(Revisions(shown))


async def list_redemptions(front: Front, request: web.Request) -> Answer:
    query = read_query(request, PageQuery)
    end = cursor(request, _moment_decoder)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            await _shown(connection, request.match_info["promotion"])
            rows = await offering.list_redemptions(
                connection,
                request.match_info["promotion"],
                before=(end.taken_at, end.reservation_id) if end else None,
                rows_max=query.limit,
            )
    more = None
    if len(rows) == query.limit:
        more = cursor_text(RedemptionsEnd(rows[-1]["taken_at"], rows[-1]["reservation_id"]))
    return personal(RedemptionsPage([redemption_shown(row) for row in rows], more))


async def create_codes(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _codes_decoder)
    promotion_id, actor = request.match_info["promotion"], front.caller(request).user_id
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            made = await codes.add_codes(connection, actor, promotion_id, body, front.engine.ids)
    if made is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(CodesMade(made), 201)


async def list_codes(front: Front, request: web.Request) -> Answer:
    query = read_query(request, PageQuery)
    end = cursor(request, _end_decoder)
    rows = await _codes(front, request, end.key if end else None, query.limit)
    more = cursor_text(PageEnd(rows[-1]["code"])) if len(rows) == query.limit else None
    return personal(CouponsPage([_coupon_shown(row) for row in rows], more))


async def export_codes(front: Front, request: web.Request) -> Answer:
    rows = await _codes(front, request, None, codes.CODES_OF_PROMOTION_MAX)
    headers = (*SECURITY_HEADERS, ("Content-Type", "text/csv; charset=utf-8"), NO_STORE)
    saved = ("Content-Disposition", 'attachment; filename="codes.csv"')
    return Answer(200, codes.codes_as_csv(rows), (*headers, saved))


async def withdraw_code(front: Front, request: web.Request) -> Answer:
    await front.bodies.none(request)
    promotion_id, actor = request.match_info["promotion"], front.caller(request).user_id
    code = canonical(request.match_info["code"])
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            row = await codes.withdraw_code(connection, actor, promotion_id, code)
    if row is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(_coupon_shown(row))


async def _codes(
    front: Front, request: web.Request, after: str | None, rows_max: int
) -> list[codes.Row]:
    promotion_id = request.match_info["promotion"]
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            if await offering.find_promotion(connection, promotion_id) is None:
                raise Refusal(Code.NOT_FOUND)
            return await codes.list_codes(connection, promotion_id, after=after, rows_max=rows_max)


async def _shown(connection: Connection, promotion_id: str) -> PromotionShown:
    row = await offering.find_promotion(connection, promotion_id)
    if row is None:
        raise Refusal(Code.NOT_FOUND)
    return promotion_shown(row)


def _coupon_shown(row: codes.Row) -> CouponShown:
    return CouponShown(
        code=row["code"],
        uses_max=row["uses_max"],
        used=row["used"],
        owner_id=row["owner_id"],
        withdrawn=row["withdrawn_at"] is not None,
        created_at=moment_text(row["created_at"]),
    )


def _route(
    method: str, path: str, handler: Handler, spec: Spec, access: Access = Access.OPERATOR
) -> Route:
    return Route(method, PATH + path, handler, access=access, spec=spec)


ROUTES: Final = (
    _route(
        "POST",
        "",
        create_promotion,
        Spec(
            tag=TAG,
            summary="Offer a promotion",
            answers={201: PromotionShown},
            body=PromotionBody,
            tells={201: (LOCATION,)},
        ),
    ),
    _route(
        "GET",
        "",
        list_promotions,
        Spec(
            tag=TAG,
            summary="All promotions, by id",
            answers={200: PromotionsPage},
            query=PromotionsQuery,
        ),
        Access.SUPPORT,
    ),
    _route(
        "GET",
        "/{promotion}",
        show_promotion,
        Spec(
            tag=TAG,
            summary="A promotion",
            answers={200: PromotionShown},
            codes=(Code.NOT_FOUND,),
        ),
        Access.SUPPORT,
    ),
    _route(
        "PUT",
        "/{promotion}",
        change_promotion,
        Spec(
            tag=TAG,
            summary="Change a promotion",
            description="Other terms are a new revision; what was redeemed keeps the old one. "
            "A cap cannot go below what is redeemed.",
            answers={200: PromotionShown},
            body=PromotionChange,
            codes=(Code.NOT_FOUND, Code.CONFLICT),
        ),
    ),
    *(
        _route(
            "POST",
            f"/{{promotion}}/{word}",
            handler,
            Spec(
                tag=TAG,
                summary=f"{word.capitalize()} a promotion",
                answers={200: PromotionShown},
                codes=(Code.NOT_FOUND,),
            ),
        )
        for word, handler in (
            ("activate", activate_promotion),
            ("deactivate", deactivate_promotion),
        )
    ),
    _route(
        "GET",
        "/{promotion}/revisions",
        list_revisions,
        Spec(
            tag=TAG,
            summary="What a promotion promised when, newest first",
            answers={200: Revisions},
            codes=(Code.NOT_FOUND,),
        ),
        Access.SUPPORT,
    ),
    _route(
        "GET",
        "/{promotion}/redemptions",
        list_redemptions,
        Spec(
            tag=TAG,
            summary="Who redeemed a promotion, newest first",
            answers={200: RedemptionsPage},
            query=PageQuery,
            codes=(Code.NOT_FOUND,),
        ),
        Access.SUPPORT,
    ),
    _route(
        "POST",
        "/{promotion}/codes",
        create_codes,
        Spec(
            tag=TAG,
            summary="Make coupons of a promotion",
            answers={201: CodesMade},
            body=CodesBody,
            codes=(Code.NOT_FOUND, Code.CODE_TAKEN, Code.CONFLICT),
        ),
    ),
    _route(
        "GET",
        "/{promotion}/codes",
        list_codes,
        Spec(
            tag=TAG,
            summary="A promotion's coupons, by code",
            answers={200: CouponsPage},
            query=PageQuery,
            codes=(Code.NOT_FOUND,),
        ),
        Access.SUPPORT,
    ),
    _route(
        "GET",
        "/{promotion}/codes.csv",
        export_codes,
        Spec(
            tag=TAG,
            summary="All of a promotion's coupons as CSV",
            answers={200: "text/csv"},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    _route(
        "POST",
        "/{promotion}/codes/{code}/withdraw",
        withdraw_code,
        Spec(
            tag=TAG,
            summary="Make a coupon good for nothing",
            answers={200: CouponShown},
            codes=(Code.NOT_FOUND,),
        ),
    ),
)
