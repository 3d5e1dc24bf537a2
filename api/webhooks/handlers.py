"""The call that payment providers make. What it means is worked out by the worker."""

import logging

from aiohttp import web

from api.answers import Answer, personal
from api.front import Front
from api.problems import Code, Refusal
from api.routing import Route
from api.spec import Access
from engine import metrics
from engine.admission.limit import Priority
from engine.payment.provider import WebhookRefused

logger = logging.getLogger(__name__)


async def receive_webhook(front: Front, request: web.Request) -> Answer:
    provider = front.providers.get(request.match_info["provider"])
    if provider is None:
        raise Refusal(Code.NOT_FOUND)
    body = await front.bodies.raw(request)
    try:
        event = provider.parse_webhook(request.headers, body, front.engine.clock.now_ms())
    except WebhookRefused as error:
        metrics.webhooks.labels("refused").inc()
        if not front.forgery_log_throttle.admit(provider.name):
            logger.warning("Webhook refused: %s", error, extra={"action": "webhook_refused"})
        raise Refusal(Code.WEBHOOK_REFUSED) from error
    new = await front.engine.payments.receive_webhook(provider.name, event.event_id, body)
    metrics.webhooks.labels("stored" if new else "duplicate").inc()
    return personal({"received": True})


ROUTES = (
    Route(
        "POST",
        "/v1/webhooks/{provider}",
        receive_webhook,
        priority=Priority.PAYMENT,
        access=Access.PUBLIC,
    ),
)
