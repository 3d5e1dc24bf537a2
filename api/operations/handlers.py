"""The calls of load balancers and of Prometheus. Answered even when others are shed."""

import asyncio
import os

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from api.answers import SECURITY_HEADERS, Answer, public
from api.front import Front
from api.problems import Code, problem
from api.routing import Route
from api.spec import Access, Spec
from engine.admission import unreachable_servers


class StatusBody(msgspec.Struct, frozen=True):
    """How the process is."""

    status: str


async def health(_: Front, _request: web.Request) -> Answer:
    """The process is alive."""
    return public(StatusBody("ok"))


async def readiness(front: Front, _: web.Request) -> Answer:
    """The process can sell: what it needs answers, and it is not about to stop."""
    if front.stopping:
        return problem(Code.UNAVAILABLE, "This process is stopping.")
    away = await unreachable_servers(front.engine.redis, front.engine.pool)
    if away:
        return problem(Code.UNAVAILABLE, f"No answer from {' and '.join(away)}.")
    return public(StatusBody("ready"))


async def show_metrics(front: Front, _: web.Request) -> Answer:
    """All processes' metrics if they share PROMETHEUS_MULTIPROC_DIR, else this one's."""
    front.counts.flush()
    text = await asyncio.to_thread(_render)
    return Answer(200, text, (*SECURITY_HEADERS, ("Content-Type", CONTENT_TYPE_LATEST)))


def _render() -> bytes:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


ROUTES = (
    Route(
        "GET",
        "/healthz",
        health,
        always=True,
        access=Access.PUBLIC,
        spec=Spec(tag="Operations", summary="The process is alive", answers={200: StatusBody}),
    ),
    Route(
        "GET",
        "/readyz",
        readiness,
        always=True,
        access=Access.PUBLIC,
        spec=Spec(
            tag="Operations",
            summary="The process can sell",
            description="503 while Redis or Postgres does not answer, or the process is stopping.",
            answers={200: StatusBody},
        ),
    ),
    Route(
        "GET",
        "/metrics",
        show_metrics,
        always=True,
        access=Access.PUBLIC,
        spec=Spec(
            tag="Operations",
            summary="Metrics for Prometheus",
            description="Keep it from the public at the proxy.",
            answers={200: CONTENT_TYPE_LATEST},
        ),
    ),
)
