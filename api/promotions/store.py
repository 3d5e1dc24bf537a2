"""Promotions in Postgres: which apply, what a checkout redeems, what is given back.

The caps hold by the database. Everybody locks in one order, those of this module last: orders,
units, redemptions, promotions, coupons, uses, points. Knows nothing of carts.
"""

from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import Final

import msgspec

from api.points.store import spending_rule
from api.pricing.promotion import Promotion
from api.pricing.quote import Discount, PointsRule, Quote, RefusedCode
from api.promotions.coupons import CODES_MAX, Fault, canonical, fault_of, is_code
from api.promotions.terms import as_stored
from engine.errors import Conflict, Invalid
from engine.store.database import Connection

AUTOMATIC_MAX: Final = 100  # Promotions without a code that are looked at, by priority.

_SQL = files("api.promotions")
FIND_COUPONS: Final = (_SQL / "find_coupons.sql").read_text()
FIND_AUTOMATIC: Final = (_SQL / "find_automatic.sql").read_text()
TAKE_REDEMPTIONS: Final = (_SQL / "take_redemptions.sql").read_text()
TAKE_COUNTS: Final = (_SQL / "take_counts.sql").read_text()
TAKE_COUPONS: Final = (_SQL / "take_coupons.sql").read_text()
TAKE_USES: Final = (_SQL / "take_uses.sql").read_text()


class Applicable(msgspec.Struct, frozen=True):
    """What a quote may be made of, and the codes that are good for nothing, each with its Fault."""

    promotions: tuple[Promotion, ...]
    refused: tuple[RefusedCode, ...]
    points_rule: PointsRule | None  # None: this currency takes no points.


async def applicable(
    connection: Connection,
    *,
    user_id: str | None,
    codes: Sequence[str],
    currency: str,
    at: datetime,
) -> Applicable:
    """What a buyer can have now; nobody yet (None) is taken for a new buyer without uses.

    Locks nothing: `redeem` decides. Raises Invalid for more than CODES_MAX codes.
    """
    if len(codes) > CODES_MAX:
        raise Invalid("codes", f"at most {CODES_MAX}")
    rows = await connection.fetch(FIND_AUTOMATIC, user_id, currency, at, AUTOMATIC_MAX)
    automatic = [as_stored(row["terms"]).promotion(row[0], row[1], currency) for row in rows]
    coupons, refused = await _coupons(connection, user_id, codes, currency, at)
    return Applicable(
        (*automatic, *coupons), tuple(refused), await spending_rule(connection, currency)
    )


async def _coupons(
    connection: Connection, user_id: str | None, codes: Sequence[str], currency: str, at: datetime
) -> tuple[list[Promotion], list[RefusedCode]]:
    wanted = list(dict.fromkeys(map(canonical, codes)))
    known = [code for code in wanted if is_code(code)]
    rows = {row["code"]: row for row in await connection.fetch(FIND_COUPONS, known, user_id)}
    good: list[Promotion] = []
    refused: list[RefusedCode] = []
    for code in wanted:
        row = rows.get(code)
        fault = fault_of(row, user_id=user_id, currency=currency, at=at) if row else Fault.UNKNOWN
        if row is None or fault is not None:
            refused.append(RefusedCode(code, str(fault)))
        else:
            terms = as_stored(row["terms"])
            good.append(terms.promotion(row["promotion_id"], row["revision"], currency, code))
    return good, refused


async def redeem(
    connection: Connection, *, user_id: str, sale_id: str, reservation_id: str, quote: Quote
) -> None:
    """Takes what the quote says: a use of every promotion and coupon, and the points. All or nothing.

    Belongs into the checkout's transaction, after any lock of units. Again for the same checkout it
    takes nothing more. Raises Conflict `coupon_exhausted`, `coupon_used` or `points_short`.
    """
    async with connection.transaction():
        discounts = await _take_redemptions(connection, user_id, sale_id, reservation_id, quote)
        if discounts:
            await _take_caps(connection, user_id, discounts)
        if quote.points and not await connection.fetchval(
            "SELECT use_points($1, $2, $3, $4, now())",
            sale_id,
            reservation_id,
            user_id,
            quote.points,
        ):
            raise Conflict("points_short", f"There are fewer than {quote.points} points.")


async def give_back(connection: Connection, sale_id: str, reservation_id: str) -> None:
    """Gives back what a checkout took that became no order. Again it changes nothing.

    Orders need no such call: whatever moves them to cancelled, expired or refunded gives back.
    """
    key = [sale_id], [reservation_id]
    await connection.execute("SELECT give_back_promotions($1, $2, 'dropped')", *key)
    await connection.execute("SELECT give_back_points($1, $2, 'dropped')", *key)


async def _take_redemptions(
    connection: Connection, user_id: str, sale_id: str, reservation_id: str, quote: Quote
) -> list[Discount]:
    """The discounts that this checkout had not taken yet."""
    discounts = sorted(quote.discounts, key=lambda discount: discount.promotion_id)
    if not discounts:
        return []
    rows = await connection.fetch(
        TAKE_REDEMPTIONS,
        sale_id,
        reservation_id,
        user_id,
        quote.currency,
        [discount.promotion_id for discount in discounts],
        [discount.revision for discount in discounts],
        [discount.code for discount in discounts],
        [discount.amount_minor for discount in discounts],
    )
    taken = {row["promotion_id"] for row in rows}
    return [discount for discount in discounts if discount.promotion_id in taken]


async def _take_caps(connection: Connection, user_id: str, discounts: Sequence[Discount]) -> None:
    ids = [discount.promotion_id for discount in discounts]
    codes = sorted(discount.code for discount in discounts if discount.code is not None)
    counted = {row[0] for row in await connection.fetch(TAKE_COUNTS, ids)}
    _require(discounts, counted, Fault.EXHAUSTED, "has been redeemed by others meanwhile")
    used = {row[0] for row in await connection.fetch(TAKE_COUPONS, codes, user_id)}
    if len(used) < len(codes):
        raise Conflict(Fault.USED, f"The coupon {min(set(codes) - used)} is used up.")
    uses = {row[0] for row in await connection.fetch(TAKE_USES, ids, user_id)}
    _require(discounts, uses, Fault.USED, "was redeemed as often as one buyer may")


def _require(discounts: Sequence[Discount], taken: set[str], fault: Fault, why: str) -> None:
    for discount in discounts:
        if discount.promotion_id not in taken:
            what = f"coupon {discount.code}" if discount.code else "promotion"
            raise Conflict(fault, f"The {what} {why}.")
