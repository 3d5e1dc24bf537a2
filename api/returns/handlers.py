"""The calls on returns: buyers ask, operators decide and say that the goods have come."""

from typing import Any, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front, order_ids
from api.paging import cursor, cursor_text
from api.problems import Code, Refusal
from api.queries import read_query
from api.returns.bodies import (
    Approval,
    OperatorReturnBody,
    PageEnd,
    Rejection,
    ReturnBody,
    ReturnsBody,
    ReturnsQuery,
    ReturnState,
    ReturnWish,
    operator_return_body,
    return_body,
)
from api.returns.refunds import ReturnRefunds
from api.returns.store import decide, fetch_returns, find_return, receive, request_return
from api.routing import Handler, Route
from api.spec import Access, Spec
from engine.admission.limit import Priority
from engine.store.database import postgres_errors
from engine.store.resolutions import OrderKey

_wish_decoder: Final = msgspec.json.Decoder(ReturnWish)
_approval_decoder: Final = msgspec.json.Decoder(Approval)
_rejection_decoder: Final = msgspec.json.Decoder(Rejection)
_end_decoder: Final = msgspec.json.Decoder(PageEnd)


async def ask_for_return(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    key = OrderKey(*order_ids(request, "order"))
    wish = await front.bodies.json(request, _wish_decoder)
    engine = front.engine
    with postgres_errors():
        async with engine.pool.acquire() as connection, connection.transaction():
            made = await request_return(
                connection,
                key,
                user_id=user_id,
                return_id=engine.ids.new("ret"),
                reason=wish.reason,
                text=wish.text,
                within_days=engine.settings.return_days,
            )
    return personal(return_body(made), 201)


async def list_returns(front: Front, request: web.Request) -> Answer:
    query = read_query(request, ReturnsQuery)
    end = cursor(request, _end_decoder)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            found = await fetch_returns(
                connection,
                state=query.state,
                after=(end.requested_at, end.return_id) if end else None,
                rows_max=query.limit,
            )
    last = PageEnd(found[-1].requested_at, found[-1].return_id) if found else None
    more = cursor_text(last) if len(found) == query.limit else None
    return personal(ReturnsBody([operator_return_body(each) for each in found], more))


async def show_return(front: Front, request: web.Request) -> Answer:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            found = await find_return(connection, request.match_info["return"])
    if found is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(operator_return_body(found))


async def approve(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.optional_json(request, _approval_decoder, Approval())
    return await _decide(front, request, ReturnState.APPROVED, body.text)


async def reject(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _rejection_decoder)
    return await _decide(front, request, ReturnState.REJECTED, body.reason)


async def _decide(front: Front, request: web.Request, state: ReturnState, text: str) -> Answer:
    actor = front.caller(request).user_id
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            found = await decide(
                connection, request.match_info["return"], state, actor=actor, text=text
            )
    return personal(operator_return_body(found))


async def note_arrival(front: Front, request: web.Request) -> Answer:
    """The goods are here: the refund is asked for."""
    await front.bodies.none(request)
    return_id, actor = request.match_info["return"], front.caller(request).user_id
    pool, payments = front.engine.pool, front.engine.payments
    with postgres_errors():
        async with pool.acquire() as connection, connection.transaction():
            found = await receive(connection, return_id, actor=actor)
    await ReturnRefunds(pool, payments).ask_once(return_id)
    return personal(operator_return_body(found))


def _admin(method: str, path: str, handler: Handler, access: Access, spec: Spec) -> Route:
    return Route(
        method,
        f"/v1/admin/returns{path}",
        handler,
        priority=Priority.PAYMENT,
        access=access,
        spec=spec,
    )


def _spec(summary: str, **more: Any) -> Spec:
    return Spec(tag="Returns", summary=summary, answers={200: OperatorReturnBody}, **more)


_DECIDED: Final = (Code.NOT_FOUND, Code.CONFLICT, Code.BODY_TOO_LARGE)

ROUTES = (
    Route(
        "POST",
        "/v1/orders/{order}/returns",
        ask_for_return,
        priority=Priority.PAYMENT,
        access=Access.CALLER,
        spec=Spec(
            tag="Returns",
            summary="Ask to return an order, as a whole",
            description="While it is shipped, and for some days after delivery. One return of an "
            "order is open at a time. What is paid and not shipped yet is refunded without one.",
            answers={201: ReturnBody},
            body=ReturnWish,
            codes=(Code.NOT_FOUND, Code.NOT_RETURNABLE, Code.BODY_TOO_LARGE),
        ),
    ),
    _admin(
        "GET",
        "",
        list_returns,
        Access.SUPPORT,
        Spec(
            tag="Returns",
            summary="Returns, oldest first: all, or those in one state",
            answers={200: ReturnsBody},
            query=ReturnsQuery,
        ),
    ),
    _admin(
        "GET",
        "/{return}",
        show_return,
        Access.SUPPORT,
        _spec("One return", codes=(Code.NOT_FOUND,)),
    ),
    _admin(
        "POST",
        "/{return}/approve",
        approve,
        Access.OPERATOR,
        _spec("Let an order come back", body=Approval, body_required=False, codes=_DECIDED),
    ),
    _admin(
        "POST",
        "/{return}/reject",
        reject,
        Access.OPERATOR,
        _spec("Refuse a return, with what the buyer is told", body=Rejection, codes=_DECIDED),
    ),
    _admin(
        "POST",
        "/{return}/received",
        note_arrival,
        Access.OPERATOR,
        _spec(
            "The goods have come back: the payment is refunded",
            description="The return and the order are `refunded` when the provider says so.",
            body_required=False,
            codes=_DECIDED,
        ),
    ),
)
