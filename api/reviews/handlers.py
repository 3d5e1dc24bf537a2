"""The calls on reviews: read them, write one of what one bought, vote."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front
from api.language import language_of
from api.moments import Moment, check_moments
from api.paging import PAGE_DEFAULT, PAGE_MAX, cursor, cursor_text
from api.problems import Code, Refusal
from api.queries import read_query
from api.reviews import store
from api.reviews.bodies import (
    ProductReviewsBody,
    ReviewBody,
    ReviewChange,
    ReviewsBody,
    ReviewWish,
)
from api.reviews.shown import masked, review_body, stars_body
from api.reviews.store import Review
from api.routing import Route
from api.spec import LOCATION, Access, Spec
from engine.store.database import Connection, postgres_errors

TAG: Final = "Reviews"


class ProductReviewsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a product's reviews are listed."""

    sort: store.Order = "newest"
    rating: Annotated[int, msgspec.Meta(ge=1, le=5)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: str | None = None


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a list."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: str | None = None


class TimeEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last review of a page in the order of time."""

    created_at: Moment
    review_id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")]

    def __post_init__(self) -> None:
        check_moments(self.created_at)


class HelpfulEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last review of a page in the order of votes."""

    helpful: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    review_id: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")]


time_end_decoder: Final = msgspec.json.Decoder(TimeEnd)
_helpful_end_decoder: Final = msgspec.json.Decoder(HelpfulEnd)
_wish_decoder: Final = msgspec.json.Decoder(ReviewWish)
_change_decoder: Final = msgspec.json.Decoder(ReviewChange)


async def list_product_reviews(front: Front, request: web.Request) -> Answer:
    query = read_query(request, ProductReviewsQuery)
    product_id = request.match_info["product"]
    after = _after(request, query.sort)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            ratings = await store.ratings_of(connection, product_id)
            if ratings is None:
                raise Refusal(Code.NOT_FOUND)
            reviews = await store.reviews_of_product(
                connection,
                product_id,
                order=query.sort,
                rating=query.rating,
                after=after,
                rows_max=query.limit,
            )
    return personal(
        ProductReviewsBody(
            rating=stars_body(ratings),
            reviews=[review_body(review) for review in reviews],
            next=_next(reviews, query.sort) if len(reviews) == query.limit else None,
        )
    )


async def list_own_reviews(front: Front, request: web.Request) -> Answer:
    query = read_query(request, PageQuery)
    end = cursor(request, time_end_decoder)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            reviews = await store.reviews_in(
                connection,
                user_id=front.caller(request).user_id,
                after=(end.created_at, end.review_id) if end else None,
                rows_max=query.limit,
            )
    shown = [review_body(review, with_state=True) for review in reviews]
    more = time_end(reviews) if len(reviews) == query.limit else None
    return personal(ReviewsBody(shown, more))


async def write_review(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    wish = await front.bodies.json(request, _wish_decoder)
    review_id = front.engine.ids.new("rev")
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            purchase = await store.find_purchase(connection, user_id, wish.sku)
            if purchase is None:
                raise Refusal(Code.NOT_BOUGHT)
            added = await store.add_review(
                connection,
                review_id,
                user_id,
                wish.sku,
                purchase,
                masked(purchase.author),
                wish.rating,
                wish.text,
                wish.images,
                language_of(request),
                first_state(front),
            )
            if not added:
                raise Refusal(Code.REVIEWED_ALREADY)
            review = await _found(connection, review_id)
    location = ("Location", f"/v1/reviews/{review_id}")
    return personal(review_body(review, with_state=True), 201, location)


async def show_review(front: Front, request: web.Request) -> Answer:
    viewer = front.visitor(request)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            review = await _found(connection, request.match_info["review"])
    own = viewer is not None and viewer.user_id == review.user_id
    if not own and review.state != "published":
        raise Refusal(Code.NOT_FOUND)
    return personal(review_body(review, with_state=own))


async def edit_review(front: Front, request: web.Request) -> Answer:
    change = await front.bodies.json(request, _change_decoder)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            review = await _own(front, request, connection)
            await store.change_review(
                connection,
                review.review_id,
                rating=change.rating,
                body=change.text,
                images=change.images,
                state=first_state(front),
            )
            review = await _found(connection, review.review_id)
    return personal(review_body(review, with_state=True))


async def delete_review(front: Front, request: web.Request) -> Answer:
    """200 with the review that is no more."""
    await front.bodies.none(request)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            review = await _own(front, request, connection)
            await store.remove_review(connection, review.review_id)
    return personal(review_body(review, with_state=True))


async def vote_helpful(front: Front, request: web.Request) -> Answer:
    return await _vote(front, request, helpful=True)


async def take_vote_back(front: Front, request: web.Request) -> Answer:
    return await _vote(front, request, helpful=False)


async def _vote(front: Front, request: web.Request, *, helpful: bool) -> Answer:
    await front.bodies.none(request)
    user_id = front.caller(request).user_id
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            review = await _found(connection, request.match_info["review"])
            if review.state != "published":
                raise Refusal(Code.NOT_FOUND)
            if review.user_id == user_id:
                raise Refusal(Code.FORBIDDEN, "Nobody votes for a review of one's own.")
            await (store.vote if helpful else store.take_vote_back)(
                connection, review.review_id, user_id
            )
            review = await _found(connection, review.review_id)
    return personal(review_body(review))


async def _found(connection: Connection, review_id: str) -> Review:
    review = await store.find_review(connection, review_id)
    if review is None:
        raise Refusal(Code.NOT_FOUND)
    return review


async def _own(front: Front, request: web.Request, connection: Connection) -> Review:
    review = await _found(connection, request.match_info["review"])
    if review.user_id != front.caller(request).user_id:
        raise Refusal(Code.NOT_FOUND)
    return review


def first_state(front: Front) -> str:
    """What a review is before anybody has looked at it."""
    return "pending" if front.engine.settings.reviews_moderated else "published"


def _after(request: web.Request, sort: store.Order) -> tuple[object, str] | None:
    if sort == "helpful":
        votes = cursor(request, _helpful_end_decoder)
        return (votes.helpful, votes.review_id) if votes else None
    end = cursor(request, time_end_decoder)
    return (end.created_at, end.review_id) if end else None


def _next(reviews: list[Review], sort: store.Order) -> str:
    if sort == "helpful":
        return cursor_text(HelpfulEnd(reviews[-1].helpful, reviews[-1].review_id))
    return time_end(reviews)


def time_end(reviews: list[Review]) -> str:
    return cursor_text(TimeEnd(reviews[-1].created_at, reviews[-1].review_id))


ROUTES = (
    Route(
        "GET",
        "/v1/products/{product}/reviews",
        list_product_reviews,
        access=Access.VISITOR,
        spec=Spec(
            TAG,
            "Reviews of a product, with its stars",
            {200: ProductReviewsBody},
            query=ProductReviewsQuery,
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "GET",
        "/v1/reviews",
        list_own_reviews,
        access=Access.CALLER,
        spec=Spec(TAG, "One's own reviews, oldest first", {200: ReviewsBody}, query=PageQuery),
    ),
    Route(
        "POST",
        "/v1/reviews",
        write_review,
        access=Access.CALLER,
        spec=Spec(
            TAG,
            "Review a SKU that one has bought",
            {201: ReviewBody},
            body=ReviewWish,
            codes=(Code.NOT_BOUGHT, Code.REVIEWED_ALREADY),
            tells={201: (LOCATION,)},
        ),
    ),
    Route(
        "GET",
        "/v1/reviews/{review}",
        show_review,
        access=Access.VISITOR,
        spec=Spec(TAG, "One review", {200: ReviewBody}, codes=(Code.NOT_FOUND,)),
    ),
    Route(
        "PATCH",
        "/v1/reviews/{review}",
        edit_review,
        access=Access.CALLER,
        spec=Spec(
            TAG,
            "Change one's own review",
            {200: ReviewBody},
            body=ReviewChange,
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "DELETE",
        "/v1/reviews/{review}",
        delete_review,
        access=Access.CALLER,
        spec=Spec(TAG, "Take one's own review back", {200: ReviewBody}, codes=(Code.NOT_FOUND,)),
    ),
    Route(
        "PUT",
        "/v1/reviews/{review}/vote",
        vote_helpful,
        access=Access.CALLER,
        spec=Spec(
            TAG,
            "Find a review helpful",
            {200: ReviewBody},
            codes=(Code.NOT_FOUND, Code.FORBIDDEN),
        ),
    ),
    Route(
        "DELETE",
        "/v1/reviews/{review}/vote",
        take_vote_back,
        access=Access.CALLER,
        spec=Spec(
            TAG,
            "Find it helpful no more",
            {200: ReviewBody},
            codes=(Code.NOT_FOUND, Code.FORBIDDEN),
        ),
    ),
)
