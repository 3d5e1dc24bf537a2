"""The payment providers as the front needs them: to verify webhooks and to know what they take.

The front starts no charge and asks after none: the worker does. It may fetch a provider's public keys.
"""

from engine.clock import Clock
from engine.config import Settings
from engine.payment.http import HttpClient
from engine.payment.provider import Provider
from engine.payment.providers import plain_providers
from engine.payment.sandbox import SandboxProvider


def front_providers(settings: Settings, http: HttpClient, clock: Clock) -> dict[str, Provider]:
    """By name, as in `/v1/webhooks/<name>`. Those that the settings configure. Raises ConfigError."""
    providers = plain_providers(settings, http, clock)
    if settings.sandbox_secret is not None:  # Enough to verify; the worker needs its address too.
        url, secret = settings.sandbox_url or "", settings.sandbox_secret
        providers["sandbox"] = SandboxProvider(http, url, secret, clock)
    return providers
