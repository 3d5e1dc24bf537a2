"""The calls of buyers: what is offered, what a coupon is good for, one's wallet."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front
from api.language import language_of
from api.moments import now_of
from api.problems import Code, Refusal
from api.promotions import wallet
from api.promotions.bodies import (
    ClaimBody,
    CouponOffer,
    CouponQuery,
    Offers,
    Wallet,
    offer_of,
)
from api.promotions.coupons import canonical, fault_of, is_code
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Spec
from engine.store.database import postgres_errors

TAG: Final = "Promotions"

_claim_decoder: Final = msgspec.json.Decoder(ClaimBody)


async def list_promotions(front: Front, request: web.Request) -> Answer:
    language = language_of(request)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            rows = await wallet.public_promotions(connection, now_of(front.engine.clock))
    return personal(Offers([offer_of(row, language, row["code"]) for row in rows]))


async def show_coupon(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    currency = read_query(request, CouponQuery).currency
    code = canonical(request.match_info["code"])
    if not is_code(code):
        raise Refusal(Code.COUPON_UNKNOWN)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            rows = await wallet.find_coupons(connection, [code], user_id)
    if not rows:
        raise Refusal(Code.COUPON_UNKNOWN)
    return personal(_coupon(front, request, rows[0], currency))


async def claim_coupon(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    code = canonical((await front.bodies.json(request, _claim_decoder)).code)
    now = now_of(front.engine.clock)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            row = await wallet.claim(connection, user_id, code, now)
    return personal(_coupon(front, request, row, None), 201 if row["new"] else 200)


async def list_coupons(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            codes = await wallet.claimed_codes(connection, user_id)
            rows = await wallet.find_coupons(connection, codes, user_id)
    by_code = {row["code"]: row for row in rows}
    return personal(Wallet([_coupon(front, request, by_code[code], None) for code in codes]))


def _coupon(
    front: Front, request: web.Request, row: Mapping[str, Any], currency: str | None
) -> CouponOffer:
    user_id = front.caller(request).user_id
    fault = fault_of(row, user_id=user_id, currency=currency, at=now_of(front.engine.clock))
    offer = offer_of(row, language_of(request), row["code"])
    return CouponOffer(row["code"], fault is None, fault, row["claimed"], offer)


ROUTES: Final = (
    Route(
        "GET",
        "/v1/promotions",
        list_promotions,
        access=Access.VISITOR,
        spec=Spec(tag=TAG, summary="What is offered to everybody now", answers={200: Offers}),
    ),
    Route(
        "GET",
        "/v1/coupons",
        list_coupons,
        access=Access.CALLER,
        spec=Spec(tag=TAG, summary="One's wallet", answers={200: Wallet}),
    ),
    Route(
        "POST",
        "/v1/coupons",
        claim_coupon,
        access=Access.CALLER,
        spec=Spec(
            tag=TAG,
            summary="Put a coupon into one's wallet",
            description="One for single use is nobody else's from then on. Again it changes nothing.",
            answers={201: CouponOffer, 200: CouponOffer},
            body=ClaimBody,
            codes=(
                Code.COUPON_UNKNOWN,
                Code.COUPON_EXPIRED,
                Code.COUPON_EXHAUSTED,
                Code.COUPON_USED,
                Code.COUPON_NOT_APPLICABLE,
                Code.LIMIT_REACHED,
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/coupons/{code}",
        show_coupon,
        access=Access.CALLER,
        spec=Spec(
            tag=TAG,
            summary="What a coupon is good for, or why it is not",
            answers={200: CouponOffer},
            query=CouponQuery,
            codes=(Code.COUPON_UNKNOWN,),
        ),
    ),
)
