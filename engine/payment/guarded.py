"""A payment provider behind its circuit breaker: while it fails, it is not asked, at once and honestly.

Webhooks pass: it is the provider who speaks there.
"""

from collections.abc import Mapping, Sequence
from datetime import date

from engine.admission.breaker import Breaker, BreakerState
from engine.payment.provider import (
    Charge,
    PaymentRequest,
    Provider,
    ProviderResult,
    StatementLine,
    WebhookEvent,
)


class GuardedProvider:
    """Implements `provider.Provider` over another. Calls raise CircuitOpen, too."""

    def __init__(self, provider: Provider, breaker: Breaker) -> None:
        self._provider = provider
        self._breaker = breaker
        self.name = provider.name
        self.offer = provider.offer
        self.acknowledgement = provider.acknowledgement
        self.bill_offset_hours = provider.bill_offset_hours

    def is_cut_off(self) -> bool:
        """Whether a call would be refused without asking, for a while yet."""
        return self._breaker.state is BreakerState.OPEN

    def is_failing(self) -> bool:
        """Whether it is not known to answer."""
        return self._breaker.state is not BreakerState.CLOSED

    async def create(self, request: PaymentRequest) -> ProviderResult:
        with self._breaker.guarding():
            return await self._provider.create(request)

    async def query(self, charge: Charge) -> ProviderResult:
        with self._breaker.guarding():
            return await self._provider.query(charge)

    async def capture(self, charge: Charge) -> ProviderResult:
        with self._breaker.guarding():
            return await self._provider.capture(charge)

    async def cancel(self, charge: Charge) -> ProviderResult:
        with self._breaker.guarding():
            return await self._provider.cancel(charge)

    async def refund(self, charge: Charge) -> ProviderResult:
        with self._breaker.guarding():
            return await self._provider.refund(charge)

    async def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, now_ms: int
    ) -> WebhookEvent:
        return await self._provider.parse_webhook(headers, body, now_ms)

    def read_event(self, body: bytes) -> WebhookEvent:
        return self._provider.read_event(body)

    async def statement(self, day: date) -> Sequence[StatementLine]:
        return await self._provider.statement(day)


def is_cut_off(provider: Provider) -> bool:
    return isinstance(provider, GuardedProvider) and provider.is_cut_off()


def is_failing(provider: Provider) -> bool:
    return isinstance(provider, GuardedProvider) and provider.is_failing()
