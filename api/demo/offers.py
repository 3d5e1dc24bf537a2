"""The demo shop's one coupon. Leaves what coupons are to api/promotions."""

from datetime import datetime
from typing import Final

from api.pricing.promotion import Kind
from api.promotions import offering
from api.promotions.bodies import CodesBody, PromotionBody
from api.promotions.codes import add_codes
from api.promotions.terms import Amounts, Terms
from engine.ids import Ids
from engine.store.database import Connection

COUPON: Final = "WELCOME"
PROMOTION_ID: Final = "promo_demo_welcome"
_TERMS: Final = Terms(
    kind=Kind.PERCENT,
    name={"en": "Ten percent off the first order", "zh-CN": "首单九折"},
    basis_points=1000,
    currencies={"CNY": Amounts(discount_max_minor=20_000), "USD": Amounts(discount_max_minor=3000)},
)


async def seed_coupon(connection: Connection, ids: Ids, now: datetime, actor: str) -> bool:
    """Makes the coupon unless there is one. Belongs into a transaction."""
    if await offering.find_promotion(connection, PROMOTION_ID) is not None:
        return False
    body = PromotionBody(terms=_TERMS, by_code=True, per_user_max=1)
    await offering.add_promotion(connection, actor, PROMOTION_ID, body, now)
    codes = CodesBody(code=COUPON, uses_max=None)
    made = await add_codes(connection, actor, PROMOTION_ID, codes, ids)
    assert made, COUPON
    return True
