"""Makes the payment providers that the settings name, each behind a circuit breaker of its own."""

from random import SystemRandom

from engine.admission.breaker import Breaker
from engine.clock import Clock
from engine.config import Settings
from engine.payment.guarded import GuardedProvider
from engine.payment.http import HttpClient
from engine.payment.provider import Provider
from engine.payment.sandbox import SandboxProvider


def make_providers(settings: Settings, http: HttpClient, clock: Clock) -> dict[str, Provider]:
    """By name. None for a provider whose address or secret is not set."""
    providers: dict[str, Provider] = {}
    if settings.sandbox_url is not None and settings.sandbox_secret is not None:
        sandbox = SandboxProvider(http, settings.sandbox_url, settings.sandbox_secret, clock)
        providers[sandbox.name] = GuardedProvider(
            sandbox, Breaker(sandbox.name, clock, SystemRandom())
        )
    return providers
