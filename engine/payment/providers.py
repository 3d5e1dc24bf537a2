"""Makes the payment providers that the settings name, each behind a circuit breaker of its own."""

from random import SystemRandom
from typing import Final

from engine.admission.breaker import Breaker
from engine.clock import Clock
from engine.config import Settings
from engine.errors import ConfigError
from engine.payment import alipay, stripe, wechatpay
from engine.payment.guarded import GuardedProvider
from engine.payment.http import HttpClient
from engine.payment.provider import Provider
from engine.payment.sandbox import SandboxProvider

PROVIDER_PAUSE_SECONDS_MAX: Final = 10.0  # It is not ours: knock seldom, payments can wait.
MAKERS: Final = (alipay.make_alipay, wechatpay.make_wechatpay, stripe.make_stripe)


def make_providers(settings: Settings, http: HttpClient, clock: Clock) -> dict[str, Provider]:
    """By name, guarded. None for a provider that is not configured; ConfigError for a half."""
    providers = plain_providers(settings, http, clock)
    return {name: _guarded(provider, clock) for name, provider in providers.items()}


def plain_providers(settings: Settings, http: HttpClient, clock: Clock) -> dict[str, Provider]:
    """As `make_providers`, without the guards."""
    providers: list[Provider] = []
    if settings.sandbox_url is not None and settings.sandbox_secret is not None:
        providers.append(
            SandboxProvider(http, settings.sandbox_url, settings.sandbox_secret, clock)
        )
    problems: list[str] = []
    for make in MAKERS:
        try:
            provider = make(settings, http, clock)
        except ConfigError as error:
            problems += error.problems
            continue
        if provider is not None:
            providers.append(provider)
    if problems:
        raise ConfigError(problems)
    return {provider.name: provider for provider in providers}


def _guarded(provider: Provider, clock: Clock) -> Provider:
    breaker = Breaker(
        provider.name, clock, SystemRandom(), pause_seconds_max=PROVIDER_PAUSE_SECONDS_MAX
    )
    return GuardedProvider(provider, breaker)
