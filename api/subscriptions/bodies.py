"""What subscriptions and deliveries look like over HTTP."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from api.answers import time_text
from api.moments import Moment, check_moments
from api.paging import PAGE_DEFAULT, PAGE_MAX
from api.subscriptions.message import message_id
from api.subscriptions.store import Delivery, DeliveryState, Subscription, SubscriptionState
from engine.sales.sale import epoch_ms

TYPES_MAX = 50

EventTypes = Annotated[
    tuple[Annotated[str, msgspec.Meta(pattern=r"^(\*|[a-z]{1,32}\.(\*|[a-z_]{1,32}))\Z")], ...],
    msgspec.Meta(min_length=1, max_length=TYPES_MAX),
]
Url = Annotated[
    str, msgspec.Meta(max_length=500, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[!-~]*)?\Z")
]
Description = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\Z")]


class SubscriptionWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/admin/subscriptions. Types as in `order.paid`, `order.*` or `*`."""

    url: Url
    types: EventTypes
    description: Description = ""


class SubscriptionChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PATCH: what is left out stays. Making it active again lets what waits go out."""

    url: Url | None = None
    types: EventTypes | None = None
    description: Description | None = None
    state: Literal["active", "paused"] | None = None


class ReplayWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a replay: the events from `since` up to `until`, now if it is left out."""

    since: Moment
    until: Moment | None = None

    def __post_init__(self) -> None:
        check_moments(self.since, self.until)


class DeliveriesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which deliveries, newest first."""

    state: DeliveryState | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: str | None = None


class SubscriptionBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A subscription. The secret is told where it is made, and never again."""

    subscription_id: str
    url: str
    description: str
    types: list[str]
    state: SubscriptionState
    created_at: str
    secret: str | None = None


class SubscriptionsBody(msgspec.Struct, frozen=True):
    """All subscriptions, oldest first."""

    subscriptions: list[SubscriptionBody]


class DeliveryBody(msgspec.Struct, frozen=True):
    """One event for one subscription, and how far that got."""

    delivery_id: str
    subscription_id: str
    event_id: str
    type: str
    state: DeliveryState
    attempts: int
    due_at: str | None
    last_status: int | None
    last_error: str | None
    delivered_at: str | None
    happened_at: str


class DeliveriesBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of deliveries."""

    deliveries: list[DeliveryBody]
    next: str | None = None


class ReplayBody(msgspec.Struct, frozen=True):
    """How many events are delivered again."""

    events: int


def subscription_body(found: Subscription, secret: str | None = None) -> SubscriptionBody:
    return SubscriptionBody(
        found.subscription_id,
        found.url,
        found.description,
        found.types,
        found.state,
        time_text(epoch_ms(found.created_at)),
        secret,
    )


def delivery_body(found: Delivery) -> DeliveryBody:
    return DeliveryBody(
        delivery_id=str(found.delivery_id),
        subscription_id=found.subscription_id,
        event_id=message_id(found.event_id),
        type=found.type,
        state=found.state,
        attempts=found.attempts,
        due_at=_time(found.due_at) if found.state == "waiting" else None,
        last_status=found.last_status,
        last_error=found.last_error,
        delivered_at=_time(found.delivered_at) if found.delivered_at else None,
        happened_at=_time(found.at),
    )


def _time(at: datetime) -> str:
    return time_text(epoch_ms(at))
