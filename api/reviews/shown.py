"""How a review is told: to anyone, to its writer, to the shop."""

from datetime import datetime

from api.answers import time_text
from api.reviews.bodies import OperatorReviewBody, ReplyBody, ReviewBody, StarsBody
from api.reviews.store import Ratings, Review
from engine.model import public_id
from engine.sales.sale import epoch_ms

NOBODY = "****"


def review_body(review: Review, *, with_state: bool = False) -> ReviewBody:
    return ReviewBody(
        review_id=review.review_id,
        product_id=review.product_id,
        sku=review.sku,
        author=review.author,
        rating=review.rating,
        text=review.body,
        images=review.images,
        language=review.language,
        helpful=review.helpful,
        created_at=_time(review.created_at),
        updated_at=_time(review.updated_at),
        reply=_reply(review),
        state=review.state if with_state else None,
        state_reason=review.state_reason if with_state else None,
    )


def operator_review_body(review: Review) -> OperatorReviewBody:
    return OperatorReviewBody(
        review_body(review, with_state=True),
        review.user_id,
        public_id(review.sale_id, review.reservation_id),
    )


def stars_body(ratings: Ratings) -> StarsBody:
    average = round(ratings.sum / ratings.count, 2) if ratings.count else None
    one, two, three, four, five = ratings.stars
    return StarsBody(average, ratings.count, (one, two, three, four, five))


def masked(name: str | None) -> str:
    """A name as a stranger may read it: its first character, as in 张**."""
    return f"{name[0]}**" if name else NOBODY


def _reply(review: Review) -> ReplyBody | None:
    if review.reply is None or review.replied_at is None:
        return None
    return ReplyBody(review.reply, _time(review.replied_at))


def _time(at: datetime) -> str:
    return time_text(epoch_ms(at))
