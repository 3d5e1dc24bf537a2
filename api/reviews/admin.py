"""The shop's calls on reviews: the queue, moderation, replies. Each change is audited."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front
from api.paging import PAGE_DEFAULT, PAGE_MAX, cursor
from api.problems import Code, Refusal
from api.queries import read_query
from api.reviews import store
from api.reviews.bodies import (
    Moderation,
    OperatorReviewBody,
    OperatorReviewsBody,
    ReplyWish,
    State,
)
from api.reviews.handlers import TAG, time_end, time_end_decoder
from api.reviews.shown import operator_review_body
from api.routing import Route
from api.spec import Access, Spec
from engine.store.database import Connection, postgres_errors
from engine.store.sales import log_audit


class QueueQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which reviews, oldest first."""

    state: State | None = None
    user: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: str | None = None


_moderation_decoder: Final = msgspec.json.Decoder(Moderation)
_reply_decoder: Final = msgspec.json.Decoder(ReplyWish)


async def list_reviews(front: Front, request: web.Request) -> Answer:
    query = read_query(request, QueueQuery)
    end = cursor(request, time_end_decoder)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            reviews = await store.reviews_in(
                connection,
                state=query.state,
                user_id=query.user,
                after=(end.created_at, end.review_id) if end else None,
                rows_max=query.limit,
            )
    more = time_end(reviews) if len(reviews) == query.limit else None
    return personal(OperatorReviewsBody([operator_review_body(each) for each in reviews], more))


async def moderate(front: Front, request: web.Request) -> Answer:
    wish = await front.bodies.json(request, _moderation_decoder)
    review_id = request.match_info["review"]
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            if not await store.moderate_review(connection, review_id, wish.state, wish.reason):
                raise Refusal(Code.NOT_FOUND)
            await _audit(front, request, connection, "review_moderated", state=wish.state)
            return await _shown(connection, review_id)


async def reply(front: Front, request: web.Request) -> Answer:
    wish = await front.bodies.json(request, _reply_decoder)
    review_id = request.match_info["review"]
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            await _shown(connection, review_id)
            await store.put_reply(connection, review_id, wish.text)
            await _audit(front, request, connection, "review_replied", text=wish.text)
            return await _shown(connection, review_id)


async def take_reply_back(front: Front, request: web.Request) -> Answer:
    await front.bodies.none(request)
    review_id = request.match_info["review"]
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            await _shown(connection, review_id)
            await store.remove_reply(connection, review_id)
            await _audit(front, request, connection, "review_reply_removed")
            return await _shown(connection, review_id)


async def _shown(connection: Connection, review_id: str) -> Answer:
    review = await store.find_review(connection, review_id)
    if review is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(operator_review_body(review))


async def _audit(
    front: Front, request: web.Request, connection: Connection, action: str, **detail: object
) -> None:
    await log_audit(
        connection,
        actor=front.caller(request).user_id,
        action=action,
        sale_id=None,
        detail={"review_id": request.match_info["review"], **detail},
    )


def _spec(summary: str, body: type | None = None) -> Spec:
    return Spec(TAG, summary, {200: OperatorReviewBody}, body=body, codes=(Code.NOT_FOUND,))


ROUTES = (
    Route(
        "GET",
        "/v1/admin/reviews",
        list_reviews,
        access=Access.SUPPORT,
        spec=Spec(TAG, "The moderation queue", {200: OperatorReviewsBody}, query=QueueQuery),
    ),
    Route(
        "POST",
        "/v1/admin/reviews/{review}/moderation",
        moderate,
        access=Access.SUPPORT,
        spec=_spec("Publish or reject a review", Moderation),
    ),
    Route(
        "PUT",
        "/v1/admin/reviews/{review}/reply",
        reply,
        access=Access.SUPPORT,
        spec=_spec("Answer a review in the shop's name", ReplyWish),
    ),
    Route(
        "DELETE",
        "/v1/admin/reviews/{review}/reply",
        take_reply_back,
        access=Access.SUPPORT,
        spec=_spec("Take the shop's answer back"),
    ),
)
