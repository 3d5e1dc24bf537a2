"""Makes the payment providers that the settings name, each behind a circuit breaker of its own."""

from random import SystemRandom
from typing import Final

from engine.admission.breaker import Breaker
from engine.clock import Clock
from engine.config import Settings
from engine.payment.guarded import GuardedProvider
from engine.payment.http import HttpClient
from engine.payment.provider import Provider
from engine.payment.sandbox import SandboxProvider

PROVIDER_PAUSE_SECONDS_MAX: Final = 10.0  # It is not ours: knock seldom, payments can wait.


def make_providers(settings: Settings, http: HttpClient, clock: Clock) -> dict[str, Provider]:
    """By name. None for a provider whose address or secret is not set."""
    providers: dict[str, Provider] = {}
    if settings.sandbox_url is not None and settings.sandbox_secret is not None:
        sandbox = SandboxProvider(http, settings.sandbox_url, settings.sandbox_secret, clock)
        providers[sandbox.name] = _guarded(sandbox, clock)
    return providers


def _guarded(provider: Provider, clock: Clock) -> Provider:
    breaker = Breaker(
        provider.name, clock, SystemRandom(), pause_seconds_max=PROVIDER_PAUSE_SECONDS_MAX
    )
    return GuardedProvider(provider, breaker)
