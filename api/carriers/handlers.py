"""The call that carriers make: what happened to a parcel."""

import logging
from typing import Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.carriers.protocol import EventRefused, TrackingEvent
from api.carriers.registry import known_carriers
from api.front import Front
from api.problems import Code, Refusal
from api.routing import Route
from api.shipping.tracking import hear
from api.spec import Access, Param, Spec
from engine.admission.limit import Priority
from engine.payment.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER
from engine.store.database import postgres_errors

logger = logging.getLogger(__name__)


class Received(msgspec.Struct, frozen=True):
    """It is stored."""

    received: bool = True


async def receive_event(front: Front, request: web.Request) -> Answer:
    """Stored with its effect, in one transaction, before it is answered."""
    engine = front.engine
    carrier = known_carriers(engine.settings, engine.clock).get(request.match_info["carrier"])
    if carrier is None:
        raise Refusal(Code.NOT_FOUND)
    body = await front.bodies.raw(request)
    try:
        event = carrier.parse_webhook(request.headers, body, engine.clock.now_ms())
    except EventRefused as error:
        if not front.forgery_log_throttle.admit(carrier.name):
            logger.warning("Tracking event refused: %s", error, extra={"action": "event_refused"})
        raise Refusal(Code.WEBHOOK_REFUSED) from error
    with postgres_errors():
        async with engine.pool.acquire() as connection, connection.transaction():
            if not await hear(connection, carrier.name, event.shipment_id, [event]):
                raise Refusal(Code.NOT_FOUND, "There is no such shipment.")
    return personal(Received())


_SIGNED: Final = (
    Param(TIMESTAMP_HEADER, "Seconds since 1970, within five minutes of now.", required=True),
    Param(SIGNATURE_HEADER, "HMAC-SHA256 of `<timestamp>.<body>`, in hex.", required=True),
)

ROUTES = (
    Route(
        "POST",
        "/v1/carriers/{carrier}/events",
        receive_event,
        priority=Priority.PAYMENT,
        access=Access.PUBLIC,
        spec=Spec(
            tag="Carriers",
            summary="What happened to a parcel, told by its carrier",
            description="Signed over the raw bytes. Told twice, late or out of order it comes to "
            "the same.",
            answers={200: Received},
            body=TrackingEvent,
            headers=_SIGNED,
            codes=(Code.WEBHOOK_REFUSED, Code.NOT_FOUND, Code.BODY_TOO_LARGE),
        ),
    ),
)
