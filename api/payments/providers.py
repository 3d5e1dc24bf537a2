"""The payment providers as the front needs them: to verify webhooks and to know their names."""

from collections.abc import Mapping

from engine.clock import Clock
from engine.config import Settings
from engine.payment.http import HttpReply
from engine.payment.provider import Provider
from engine.payment.sandbox import SandboxProvider


class NoHttp:
    """The front never calls a provider; the worker does."""

    async def post(
        self,
        url: str,
        body: bytes,  # noqa: ARG002
        headers: Mapping[str, str],  # noqa: ARG002
    ) -> HttpReply:
        raise AssertionError(f"the front called {url}")

    async def get(self, url: str, headers: Mapping[str, str]) -> HttpReply:  # noqa: ARG002
        raise AssertionError(f"the front called {url}")


def webhook_providers(settings: Settings, clock: Clock) -> dict[str, Provider]:
    """By name, as in `/v1/webhooks/<name>`. Those that the settings configure."""
    if settings.sandbox_secret is None:
        return {}
    sandbox = SandboxProvider(NoHttp(), settings.sandbox_url or "", settings.sandbox_secret, clock)
    return {sandbox.name: sandbox}
