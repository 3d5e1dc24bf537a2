"""The operators' calls on subscriptions, deliveries, replays. Each change is audited, secrets never."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front
from api.paging import cursor, cursor_text
from api.problems import Code, FieldError, Refusal, invalid
from api.queries import read_query
from api.routing import Route
from api.spec import LOCATION, Access, Spec
from api.subscriptions import store
from api.subscriptions.bodies import (
    DeliveriesBody,
    DeliveriesQuery,
    DeliveryBody,
    ReplayBody,
    ReplayWish,
    SubscriptionBody,
    SubscriptionChange,
    SubscriptionsBody,
    SubscriptionWish,
    delivery_body,
    subscription_body,
)
from api.subscriptions.message import SECRET_BYTES, new_secret
from api.subscriptions.store import Subscription
from engine.errors import Conflict
from engine.store.database import Connection, postgres_errors
from engine.store.sales import log_audit

TAG: Final = "Events"
SUBSCRIPTIONS_MAX: Final = 100  # Each is asked about for every event.
_ID_DIGITS_MAX: Final = 18


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last delivery of a page."""

    delivery_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


_end_decoder: Final = msgspec.json.Decoder(PageEnd)
_wish_decoder: Final = msgspec.json.Decoder(SubscriptionWish)
_change_decoder: Final = msgspec.json.Decoder(SubscriptionChange)
_replay_decoder: Final = msgspec.json.Decoder(ReplayWish)


async def subscribe(front: Front, request: web.Request) -> Answer:
    wish = await front.bodies.json(request, _wish_decoder)
    secret = new_secret(secrets.token_bytes(SECRET_BYTES))
    async with _transaction(front) as connection:
        if len(await store.list_subscriptions(connection, SUBSCRIPTIONS_MAX)) >= SUBSCRIPTIONS_MAX:
            raise Conflict(Code.CONFLICT, f"There are {SUBSCRIPTIONS_MAX} subscriptions already.")
        made = await store.add_subscription(
            connection,
            front.engine.ids.new("sub"),
            url=wish.url,
            description=wish.description,
            types=wish.types,
            secret=secret,
        )
        await _audit(front, request, connection, "subscribed", made.subscription_id, url=wish.url)
    location = ("Location", f"/v1/admin/subscriptions/{made.subscription_id}")
    return personal(subscription_body(made, secret), 201, location)


async def list_subscriptions(front: Front, _: web.Request) -> Answer:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            found = await store.list_subscriptions(connection, SUBSCRIPTIONS_MAX)
    return personal(SubscriptionsBody([subscription_body(each) for each in found]))


async def show_subscription(front: Front, request: web.Request) -> Answer:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            return personal(subscription_body(await _found(connection, request)))


async def change_subscription(front: Front, request: web.Request) -> Answer:
    wish = await front.bodies.json(request, _change_decoder)
    async with _transaction(front) as connection:
        found = await _found(connection, request)
        changed = await store.change_subscription(
            connection,
            found.subscription_id,
            url=wish.url,
            description=wish.description,
            types=wish.types,
            state=wish.state,
        )
        assert changed is not None
        given = {name: value for name, value in msgspec.to_builtins(wish).items() if value}
        await _audit(
            front, request, connection, "subscription_changed", found.subscription_id, **given
        )
    return personal(subscription_body(changed))


async def unsubscribe(front: Front, request: web.Request) -> Answer:
    """200 with the subscription that is no more."""
    await front.bodies.none(request)
    async with _transaction(front) as connection:
        found = await _found(connection, request)
        await store.remove_subscription(connection, found.subscription_id)
        await _audit(front, request, connection, "unsubscribed", found.subscription_id)
    return personal(subscription_body(found))


async def change_secret(front: Front, request: web.Request) -> Answer:
    """A new secret; for a day what is sent is signed with the old one, too."""
    await front.bodies.none(request)
    secret = new_secret(secrets.token_bytes(SECRET_BYTES))
    async with _transaction(front) as connection:
        found = await _found(connection, request)
        await store.change_secret(connection, found.subscription_id, secret)
        await _audit(
            front, request, connection, "subscription_secret_changed", found.subscription_id
        )
    return personal(subscription_body(found, secret))


async def replay(front: Front, request: web.Request) -> Answer:
    wish = await front.bodies.json(request, _replay_decoder)
    until = wish.until or datetime.fromtimestamp(front.engine.clock.now_ms() / 1000, UTC)
    if until <= wish.since:
        raise Refusal.of(invalid([FieldError("since", "must be before until")]))
    async with _transaction(front) as connection:
        found = await _found(connection, request)
        events = await store.replay(connection, found.subscription_id, wish.since, until)
        await _audit(
            front, request, connection, "events_replayed", found.subscription_id, events=events
        )
    return personal(ReplayBody(events), 202)


async def list_deliveries(front: Front, request: web.Request) -> Answer:
    query = read_query(request, DeliveriesQuery)
    end = cursor(request, _end_decoder)
    with postgres_errors():
        async with front.engine.pool.acquire() as connection:
            subscription = await _found(connection, request)
            found = await store.list_deliveries(
                connection,
                subscription.subscription_id,
                query.state,
                end.delivery_id if end else None,
                query.limit,
            )
    more = cursor_text(PageEnd(found[-1].delivery_id)) if len(found) == query.limit else None
    return personal(DeliveriesBody([delivery_body(each) for each in found], more))


async def deliver_again(front: Front, request: web.Request) -> Answer:
    """202: it is sent at once, whatever became of it before."""
    await front.bodies.none(request)
    text = request.match_info["delivery"]
    if not (text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS_MAX):
        raise Refusal(Code.NOT_FOUND)
    async with _transaction(front) as connection:
        found = await store.find_delivery(connection, int(text))
        if found is None:
            raise Refusal(Code.NOT_FOUND)
        await store.deliver_again(connection, found.delivery_id)
        await _audit(
            front, request, connection, "delivered_again", found.subscription_id, delivery=text
        )
        found = await store.find_delivery(connection, found.delivery_id)
        assert found is not None
    return personal(delivery_body(found), 202)


@asynccontextmanager
async def _transaction(front: Front) -> AsyncIterator[Connection]:
    with postgres_errors():
        async with front.engine.pool.acquire() as connection, connection.transaction():
            yield connection


async def _found(connection: Connection, request: web.Request) -> Subscription:
    found = await store.find_subscription(connection, request.match_info["subscription"])
    if found is None:
        raise Refusal(Code.NOT_FOUND)
    return found


async def _audit(
    front: Front,
    request: web.Request,
    connection: Connection,
    action: str,
    subscription_id: str,
    **detail: object,
) -> None:
    await log_audit(
        connection,
        actor=front.caller(request).user_id,
        action=action,
        sale_id=None,
        detail={"subscription_id": subscription_id, **detail},
    )


_ALL: Final = "/v1/admin/subscriptions"
_ONE: Final = f"{_ALL}/{{subscription}}"


def _spec(summary: str, answers: dict[int, type], **more: object) -> Spec:
    return Spec(TAG, summary, answers, codes=(Code.NOT_FOUND,), **more)  # type: ignore[arg-type]


ROUTES = (
    Route(
        "POST",
        _ALL,
        subscribe,
        access=Access.OPERATOR,
        spec=Spec(
            TAG,
            "Have another system told of events",
            {201: SubscriptionBody},
            body=SubscriptionWish,
            codes=(Code.CONFLICT,),
            tells={201: (LOCATION,)},
        ),
    ),
    Route(
        "GET",
        _ALL,
        list_subscriptions,
        access=Access.OPERATOR,
        spec=Spec(TAG, "All subscriptions", {200: SubscriptionsBody}),
    ),
    Route(
        "GET",
        _ONE,
        show_subscription,
        access=Access.OPERATOR,
        spec=_spec("One subscription", {200: SubscriptionBody}),
    ),
    Route(
        "PATCH",
        _ONE,
        change_subscription,
        access=Access.OPERATOR,
        spec=_spec(
            "Change, pause or resume a subscription",
            {200: SubscriptionBody},
            body=SubscriptionChange,
        ),
    ),
    Route(
        "DELETE",
        _ONE,
        unsubscribe,
        access=Access.OPERATOR,
        spec=_spec("End a subscription", {200: SubscriptionBody}),
    ),
    Route(
        "POST",
        f"{_ONE}/secret",
        change_secret,
        access=Access.OPERATOR,
        spec=_spec("Change the signing secret", {200: SubscriptionBody}),
    ),
    Route(
        "POST",
        f"{_ONE}/replays",
        replay,
        access=Access.OPERATOR,
        spec=_spec("Deliver the events of a time again", {202: ReplayBody}, body=ReplayWish),
    ),
    Route(
        "GET",
        f"{_ONE}/deliveries",
        list_deliveries,
        access=Access.OPERATOR,
        spec=_spec(
            "What was delivered, waits, or was given up",
            {200: DeliveriesBody},
            query=DeliveriesQuery,
        ),
    ),
    Route(
        "POST",
        "/v1/admin/deliveries/{delivery}/retry",
        deliver_again,
        access=Access.OPERATOR,
        spec=_spec("Deliver one event again", {202: DeliveryBody}),
    ),
)
