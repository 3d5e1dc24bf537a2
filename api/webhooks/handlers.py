"""The call that payment providers make. What it means is worked out by the worker."""

import logging
from typing import Final

from aiohttp import web

from api.answers import CONTENT_TYPE, NO_STORE, SECURITY_HEADERS, Answer
from api.front import Front
from api.problems import Code, Refusal
from api.routing import Route
from api.spec import Access, Spec
from engine import metrics
from engine.admission.limit import Priority
from engine.payment.provider import Acknowledgement, WebhookRefused

logger = logging.getLogger(__name__)


async def receive_webhook(front: Front, request: web.Request) -> Answer:
    provider = front.providers.get(request.match_info["provider"])
    if provider is None:
        raise Refusal(Code.NOT_FOUND)
    body = await front.bodies.raw(request)
    try:
        event = await provider.parse_webhook(request.headers, body, front.engine.clock.now_ms())
    except WebhookRefused as error:
        metrics.webhooks.labels("refused").inc()
        if not front.forgery_log_throttle.admit(provider.name):
            logger.warning("Webhook refused: %s", error, extra={"action": "webhook_refused"})
        raise Refusal(Code.WEBHOOK_REFUSED) from error
    if event.result is None:  # Genuine, and nothing to us.
        metrics.webhooks.labels("ignored").inc()
    else:
        new = await front.engine.payments.receive_webhook(provider.name, event.event_id, body)
        metrics.webhooks.labels("stored" if new else "duplicate").inc()
    return _acknowledged(provider.acknowledgement)


def _acknowledged(reply: Acknowledgement) -> Answer:
    """The answer in the provider's own words: with any other it would tell again."""
    headers = (*SECURITY_HEADERS, (CONTENT_TYPE, reply.content_type), NO_STORE)
    return Answer(reply.status, reply.body, headers)


_SPEC: Final = Spec(
    tag="Payments",
    summary="A payment provider tells of a charge",
    description="In the provider's own form and signature; answered in the provider's own words. "
    "Stored before it is answered.",
    body=str,
    body_media="*/*",
    answers={200: "*/*"},
    codes=(Code.NOT_FOUND, Code.WEBHOOK_REFUSED, Code.BODY_TOO_LARGE),
)

ROUTES = (
    Route(
        "POST",
        "/v1/webhooks/{provider}",
        receive_webhook,
        priority=Priority.PAYMENT,
        access=Access.PUBLIC,
        spec=_SPEC,
    ),
)
