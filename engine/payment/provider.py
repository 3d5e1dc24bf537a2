"""What the engine asks of a payment provider. Knows no provider in particular."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from engine.errors import DoorbusterError


class WebhookRefused(DoorbusterError):
    """A webhook is forged, stale or unreadable. Nothing was stored."""


class ProviderRefused(DoorbusterError):
    """The provider understood the request and will not do it; repeating it will not help."""


class ChargeStatus(StrEnum):
    """What a provider says of a charge."""

    PENDING = "pending"
    FAILED = "failed"
    CAPTURED = "captured"
    REFUNDED = "refunded"
    UNKNOWN = "unknown"  # The provider never heard of this payment id.


class PaymentRequest(msgspec.Struct, frozen=True):
    """A charge to make. The payment id makes it idempotent at the provider."""

    payment_id: str
    amount_minor: int
    currency: str
    options: dict[str, object] = {}


class ProviderResult(msgspec.Struct, frozen=True):
    """The provider's present word on one payment. No amount where the provider knows no charge."""

    payment_id: str
    status: ChargeStatus
    amount_minor: int | None = None
    currency: str | None = None
    provider_ref: str | None = None
    detail: str | None = None


class WebhookEvent(msgspec.Struct, frozen=True):
    """A verified webhook: the provider's id of the event and what it says."""

    event_id: str
    result: ProviderResult


class Provider(Protocol):
    """One payment provider.

    Calls are idempotent by payment id and may be repeated after ProviderUnavailable, which leaves
    the outcome unknown. ProviderRefused is final.
    """

    @property
    def name(self) -> str:
        """As in `/v1/webhooks/<name>` and in `payments.provider`."""

    async def create(self, request: PaymentRequest) -> ProviderResult:
        """Charges the amount."""

    async def query(self, payment_id: str) -> ProviderResult:
        """What became of a charge; UNKNOWN where there is none."""

    async def refund(self, payment_id: str) -> ProviderResult:
        """Pays a captured charge back, in full and once."""

    def parse_webhook(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> WebhookEvent:
        """Verifies the raw bytes. Raises WebhookRefused."""

    def read_event(self, body: bytes) -> WebhookEvent:
        """Reads bytes verified before. Raises WebhookRefused where they are unreadable."""
