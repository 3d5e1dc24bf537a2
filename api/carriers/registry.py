"""The carriers that the settings configure, by the name that they have in paths and tables."""

from collections.abc import Mapping

from api.carriers.client import SandboxCarrier
from api.carriers.protocol import Carrier
from engine.clock import Clock
from engine.config import Settings
from engine.payment.http import HttpClient, HttpReply


def make_carriers(settings: Settings, http: HttpClient, clock: Clock) -> dict[str, Carrier]:
    if settings.carrier_url is None or settings.carrier_secret is None:
        return {}
    sandbox = SandboxCarrier(http, settings.carrier_url, settings.carrier_secret, clock)
    return {sandbox.name: sandbox}


class NoHttp:
    """The front never calls a carrier; the worker does."""

    async def post(
        self,
        url: str,
        body: bytes,  # noqa: ARG002
        headers: Mapping[str, str],  # noqa: ARG002
    ) -> HttpReply:
        raise AssertionError(f"the front called {url}")

    async def get(
        self,
        url: str,
        headers: Mapping[str, str],  # noqa: ARG002
        *,
        bytes_max: int = 0,  # noqa: ARG002
    ) -> HttpReply:
        raise AssertionError(f"the front called {url}")


def known_carriers(settings: Settings, clock: Clock) -> dict[str, Carrier]:
    """As the front needs them: to verify what they tell and to know their names. It calls none."""
    return make_carriers(settings, NoHttp(), clock)
