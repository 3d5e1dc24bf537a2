"""What the engine asks of a payment provider. Knows no provider in particular."""

from collections.abc import Mapping, Sequence
from datetime import date
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

import msgspec

from engine.errors import DoorbusterError

WEBHOOK_PATH: Final = "/v1/webhooks/"  # and the provider's name


class WebhookRefused(DoorbusterError):
    """A webhook is forged, stale or unreadable. Nothing was stored."""


class ProviderRefused(DoorbusterError):
    """The provider understood the request and will not do it; repeating it will not help."""


class StatementUnreadable(DoorbusterError):
    """A provider's statement is not what it should be."""


class ChargeStatus(StrEnum):
    """What a provider says of a charge."""

    PENDING = "pending"
    AUTHORIZED = "authorized"  # The money is held for us; it is ours once captured.
    FAILED = "failed"
    CAPTURED = "captured"
    REFUNDED = "refunded"
    UNKNOWN = "unknown"  # The provider never heard of this payment id.


class ActionKind(StrEnum):
    """How a buyer pays."""

    REDIRECT = "redirect"  # Send the browser to `url`.
    QR_CODE = "qr_code"  # Show `code` as a QR code.
    CLIENT_SECRET = "client_secret"  # noqa: S105  # Hand it to the provider's script in the browser.


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the buyer has to do before there is anything to capture."""

    kind: ActionKind
    url: str | None = None
    code: str | None = None
    client_secret: str | None = None
    publishable_key: str | None = None


class PaymentRequest(msgspec.Struct, frozen=True):
    """A charge to make. The payment id makes it idempotent at the provider."""

    payment_id: str
    amount_minor: int
    currency: str
    options: dict[str, object] = {}
    description: str = ""  # As the buyer's statement shows it.
    expires_at_ms: int | None = None  # The order's deadline: the provider takes nothing later.
    return_path: str | None = None  # Where in the shop the buyer goes on.
    client_address: str | None = None
    language: str = "en"


class Charge(msgspec.Struct, frozen=True):
    """A charge that was made, or tried, as it is known here."""

    payment_id: str
    amount_minor: int
    currency: str
    created_at_ms: int = 0
    expires_at_ms: int = 0
    provider_ref: str | None = None


class ProviderResult(msgspec.Struct, frozen=True):
    """The provider's present word on one payment. No amount where the provider knows no charge."""

    payment_id: str
    status: ChargeStatus
    amount_minor: int | None = None
    currency: str | None = None
    provider_ref: str | None = None
    detail: str | None = None
    action: Action | None = None  # while it is pending
    at_ms: int | None = None  # When it was captured or refunded, by the provider's clock.


class WebhookEvent(msgspec.Struct, frozen=True):
    """A verified webhook: the provider's id of the event and what it says; None: nothing to us."""

    event_id: str
    result: ProviderResult | None


class Acknowledgement(NamedTuple):
    """The answer after which a provider stops telling."""

    body: bytes
    content_type: str
    status: int = 200


class Offer(NamedTuple):
    """What a provider takes. `currencies` None: all of them."""

    currencies: frozenset[str] | None
    actions: tuple[ActionKind, ...]


class LineKind(StrEnum):
    """What a line of a statement is about."""

    PAYMENT = "payment"
    REFUND = "refund"


class StatementLine(msgspec.Struct, frozen=True):
    """One movement of money as a provider books it. The amount is positive, of refunds too."""

    kind: LineKind
    payment_id: str
    provider_ref: str
    amount_minor: int
    currency: str


class Provider(Protocol):
    """One payment provider.

    Calls are idempotent by payment id and may be repeated after ProviderUnavailable, which leaves
    the outcome unknown. ProviderRefused is final.
    """

    @property
    def name(self) -> str:
        """As in `/v1/webhooks/<name>` and in `payments.provider`."""

    @property
    def offer(self) -> Offer:
        """What it takes."""

    @property
    def acknowledgement(self) -> Acknowledgement:
        """How it is told that a webhook arrived."""

    @property
    def bill_offset_hours(self) -> int:
        """Where its days begin: hours ahead of UTC."""

    async def create(self, request: PaymentRequest) -> ProviderResult:
        """Charges the amount, or begins to: then with what the buyer has to do."""

    async def query(self, charge: Charge) -> ProviderResult:
        """What became of a charge; UNKNOWN where there is none."""

    async def capture(self, charge: Charge) -> ProviderResult:
        """Takes what was authorized. Where it cannot be taken: what the charge is instead."""

    async def cancel(self, charge: Charge) -> ProviderResult:
        """Gives up what is not captured. Where that is too late: what the charge is instead."""

    async def refund(self, charge: Charge) -> ProviderResult:
        """Pays back all that was captured, once; PENDING while it is on its way."""

    async def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, now_ms: int
    ) -> WebhookEvent:
        """Verifies the raw bytes. Raises WebhookRefused; ProviderUnavailable where the provider's
        key could not be had."""

    def read_event(self, body: bytes) -> WebhookEvent:
        """Reads bytes verified before. Raises WebhookRefused where they are unreadable."""

    async def statement(self, day: date) -> Sequence[StatementLine]:
        """What the provider booked on one of its days, over. Raises StatementUnreadable,
        ProviderRefused where it has none (yet)."""
