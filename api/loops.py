"""The loops of the shop that the worker runs beside the engine's. Decides nothing."""

from engine.core import Engine
from engine.payment.http import HttpClient
from engine.worker import Loop


def shop_loops(engine: Engine, http: HttpClient) -> list[tuple[str, Loop]]:  # noqa: ARG001
    """Each with its name. Producers and consumers alike: they share nothing but Postgres."""
    return []
