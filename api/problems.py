"""Every way to say no over HTTP: RFC 9457 problem details with stable codes.

The one list of codes is here; tests and documents are held against it.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import Final, NamedTuple, Self

import msgspec

from api.answers import NO_STORE, PROBLEM_JSON, SECURITY_HEADERS, Answer, Headers
from engine.errors import (
    Conflict,
    DoorbusterError,
    Invalid,
    InvalidDocument,
    Overloaded,
    StaleEpoch,
    Unavailable,
    UnknownReservation,
    UnknownSale,
)

RETRY_AFTER_SECONDS_MAX: Final = (
    3600  # Clocks drift and sales are moved: ask again within the hour.
)
JITTER_SECONDS_MAX: Final = 2  # A crowd that was shed comes back over three seconds.
TYPE_PREFIX: Final = "urn:doorbuster:problem:"


class Code(StrEnum):
    """What went wrong, for programs. A code, once published, keeps its meaning and its status."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    WRONG_CREDENTIALS = "wrong_credentials"
    WEBHOOK_REFUSED = "webhook_refused"
    FORBIDDEN = "forbidden"
    TICKET_REQUIRED = "ticket_required"
    TICKET_INVALID = "ticket_invalid"
    CSRF_REQUIRED = "csrf_required"
    LOGIN_REFUSED = "login_refused"
    ACCOUNT_BLOCKED = "account_blocked"
    NOT_FOUND = "not_found"
    UNKNOWN_SALE = "unknown_sale"
    UNKNOWN_SKU = "unknown_sku"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    SOLD_OUT = "sold_out"
    ALL_RESERVED = "all_reserved"
    LIMIT_REACHED = "limit_reached"
    EMAIL_TAKEN = "email_taken"
    SALE_EXISTS = "sale_exists"
    NOT_CANCELLABLE = "not_cancellable"
    ORDER_NOT_PAYABLE = "order_not_payable"
    NOT_REFUNDABLE = "not_refundable"
    NOT_SHIPPABLE = "not_shippable"
    NOT_RETURNABLE = "not_returnable"
    NOT_INVOICEABLE = "not_invoiceable"
    TOO_MANY_PAYMENTS = "too_many_payments"
    SALE_CLOSED = "sale_closed"
    NOT_BOUGHT = "not_bought"
    REVIEWED_ALREADY = "reviewed_already"
    COUPON_UNKNOWN = "coupon_unknown"
    COUPON_EXPIRED = "coupon_expired"
    COUPON_EXHAUSTED = "coupon_exhausted"
    COUPON_USED = "coupon_used"
    COUPON_NOT_APPLICABLE = "coupon_not_applicable"
    CODE_TAKEN = "code_taken"
    POINTS_SHORT = "points_short"
    CART_FULL = "cart_full"
    CART_EMPTY = "cart_empty"
    CART_UNAVAILABLE = "cart_unavailable"
    SEVERAL_GROUPS = "several_groups"
    TOTAL_CHANGED = "total_changed"
    COUPON_REFUSED = "coupon_refused"
    ADDRESS_REQUIRED = "address_required"
    SHIPPING_REQUIRED = "shipping_required"
    NO_SHIPPING = "no_shipping"
    SKU_TAKEN = "sku_taken"
    CATEGORY_IN_USE = "category_in_use"
    CONFLICT = "conflict"
    TOO_MANY_ADDRESSES = "too_many_addresses"
    SALE_ENDED = "sale_ended"
    LINK_INVALID = "link_invalid"
    CART_CHANGED = "cart_changed"
    BODY_TOO_LARGE = "body_too_large"
    CHANGED_MEANWHILE = "changed_meanwhile"
    PRECONDITION_REQUIRED = "precondition_required"
    EXPECTATION_FAILED = "expectation_failed"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    NOT_STARTED = "not_started"
    THROTTLED = "throttled"
    INTERNAL_ERROR = "internal_error"
    SALE_PAUSED = "sale_paused"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"


_CODE_WORDS: Final = frozenset(code.value for code in Code)


class _Meaning(NamedTuple):
    status: int
    title: str
    retry_after_s: int | None = None


_MEANINGS: Final[dict[Code, _Meaning]] = {
    Code.INVALID_REQUEST: _Meaning(400, "The request breaks a rule"),
    Code.UNAUTHENTICATED: _Meaning(401, "A valid access token is needed"),
    Code.WRONG_CREDENTIALS: _Meaning(401, "E-mail or password is wrong"),
    Code.WEBHOOK_REFUSED: _Meaning(401, "The webhook is not genuine"),
    Code.FORBIDDEN: _Meaning(403, "Not allowed"),
    Code.TICKET_REQUIRED: _Meaning(403, "A queue ticket whose turn has come is needed"),
    Code.TICKET_INVALID: _Meaning(403, "The queue ticket is not good"),
    Code.CSRF_REQUIRED: _Meaning(403, "A call of a browser needs the X-CSRF-Token of its session"),
    Code.LOGIN_REFUSED: _Meaning(403, "The login with another provider did not succeed"),
    Code.ACCOUNT_BLOCKED: _Meaning(403, "The account is blocked"),
    Code.NOT_FOUND: _Meaning(404, "There is no such thing"),
    Code.UNKNOWN_SALE: _Meaning(404, "There is no such sale"),
    Code.UNKNOWN_SKU: _Meaning(404, "The sale has no such SKU"),
    Code.METHOD_NOT_ALLOWED: _Meaning(405, "Not with this method"),
    Code.SOLD_OUT: _Meaning(409, "Sold out"),
    Code.ALL_RESERVED: _Meaning(409, "All units are reserved; some may come back", 5),
    Code.LIMIT_REACHED: _Meaning(409, "The limit per buyer is reached"),
    Code.EMAIL_TAKEN: _Meaning(409, "This e-mail is registered already"),
    Code.SALE_EXISTS: _Meaning(409, "There is a sale of this name already"),
    Code.NOT_CANCELLABLE: _Meaning(409, "The order cannot be cancelled any more"),
    Code.ORDER_NOT_PAYABLE: _Meaning(409, "The order cannot be paid"),
    Code.NOT_REFUNDABLE: _Meaning(409, "The payment cannot be refunded"),
    Code.NOT_SHIPPABLE: _Meaning(409, "The order cannot be shipped"),
    Code.NOT_RETURNABLE: _Meaning(409, "The order cannot be returned"),
    Code.NOT_INVOICEABLE: _Meaning(409, "The order has no invoice"),
    Code.TOO_MANY_PAYMENTS: _Meaning(409, "The order has too many payments already"),
    Code.SALE_CLOSED: _Meaning(409, "The sale is closed; open it first"),
    Code.NOT_BOUGHT: _Meaning(403, "Only buyers of this SKU may review it"),
    Code.REVIEWED_ALREADY: _Meaning(409, "There is a review of this SKU by this buyer already"),
    Code.COUPON_UNKNOWN: _Meaning(404, "There is no such coupon"),
    Code.COUPON_EXPIRED: _Meaning(409, "The coupon is not valid any more"),
    Code.COUPON_EXHAUSTED: _Meaning(409, "Others have redeemed all there were"),
    Code.COUPON_USED: _Meaning(409, "The coupon was used already"),
    Code.COUPON_NOT_APPLICABLE: _Meaning(409, "The coupon is not for this"),
    Code.CODE_TAKEN: _Meaning(409, "There is a coupon of this code already"),
    Code.POINTS_SHORT: _Meaning(409, "There are not so many points"),
    Code.CART_FULL: _Meaning(409, "The cart has too many lines already"),
    Code.CART_EMPTY: _Meaning(409, "There is nothing in the cart to be bought"),
    Code.CART_UNAVAILABLE: _Meaning(409, "A line cannot be bought; remove it or choose others"),
    Code.SEVERAL_GROUPS: _Meaning(409, "The lines are of several orders; name the sale, or shop"),
    Code.TOTAL_CHANGED: _Meaning(409, "It costs something else by now; ask for a new quote"),
    Code.COUPON_REFUSED: _Meaning(409, "A coupon takes nothing off"),
    Code.ADDRESS_REQUIRED: _Meaning(409, "An address is needed to ship to"),
    Code.SHIPPING_REQUIRED: _Meaning(409, "A shipping method has to be chosen"),
    Code.NO_SHIPPING: _Meaning(409, "Nothing is shipped to this place that way"),
    Code.SKU_TAKEN: _Meaning(409, "The SKU belongs to another product"),
    Code.CATEGORY_IN_USE: _Meaning(409, "The category has products or categories below it"),
    Code.CONFLICT: _Meaning(409, "The present state does not allow it"),
    Code.TOO_MANY_ADDRESSES: _Meaning(409, "There are too many addresses already"),
    Code.LINK_INVALID: _Meaning(410, "The link was used, or has expired"),
    Code.SALE_ENDED: _Meaning(410, "The sale has ended"),
    Code.CART_CHANGED: _Meaning(412, "The cart was changed meanwhile"),
    Code.BODY_TOO_LARGE: _Meaning(413, "The body is too large"),
    Code.CHANGED_MEANWHILE: _Meaning(412, "It is not as the request expects it; read it again"),
    Code.PRECONDITION_REQUIRED: _Meaning(428, "Say which version is to be changed: If-Match"),
    Code.EXPECTATION_FAILED: _Meaning(417, "Only Expect: 100-continue is known"),
    Code.IDEMPOTENCY_MISMATCH: _Meaning(422, "The key was used for another request"),
    Code.NOT_STARTED: _Meaning(425, "The sale has not started", 1),
    Code.THROTTLED: _Meaning(429, "Too many requests", 1),
    Code.INTERNAL_ERROR: _Meaning(500, "Something is broken here"),
    Code.SALE_PAUSED: _Meaning(503, "The sale is paused", 5),
    Code.OVERLOADED: _Meaning(503, "Too busy; nothing was done", 1),
    Code.UNAVAILABLE: _Meaning(503, "A part of the engine does not answer", 1),
}

_HEADERS: Final[Headers] = (*SECURITY_HEADERS, ("Content-Type", PROBLEM_JSON), NO_STORE)

OUTCOME_UNKNOWN: Final = (
    "The outcome is unknown. Repeat the same request with the same Idempotency-Key: "
    "it is safe and finds out."
)


TAKE_A_TICKET: Final = "Take a ticket with POST /v1/sales/{sale}/queue."
TICKET_USED: Final = "This ticket was used for another reservation; take a new one."


class FieldError(msgspec.Struct, frozen=True):
    """One rule broken. `field` says where, as in `items[3].sku`."""

    field: str
    problem: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a refusal (RFC 9457 §3)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: tuple[FieldError, ...] = ()
    request_id: str = ""


class Refusal(Exception):
    """Ends a call with a problem: raised by what reads a request, answered in one place."""

    def __init__(self, code: Code, detail: str = "", *, retry_after_s: float | None = None) -> None:
        self.answer = problem(code, detail, retry_after_s=retry_after_s)

    @classmethod
    def of(cls, answer: Answer) -> Self:
        refusal = cls.__new__(cls)
        refusal.answer = answer
        return refusal


def problem(
    code: Code,
    detail: str = "",
    *,
    retry_after_s: float | None = None,
    errors: tuple[FieldError, ...] = (),
    request_id: str = "",
) -> Answer:
    """A refusal, with Retry-After where the code has one or `retry_after_s` says so."""
    meaning = _MEANINGS[code]
    body = Problem(
        type=TYPE_PREFIX + code.value,
        title=meaning.title,
        status=meaning.status,
        code=code.value,
        detail=detail or f"{meaning.title}.",
        errors=errors,
        request_id=request_id,
    )
    headers = _HEADERS
    seconds = meaning.retry_after_s if retry_after_s is None else retry_after_s
    if seconds is not None:
        headers = (*headers, ("Retry-After", _bounded(seconds)))
    if meaning.status == 401:
        headers = (*headers, ("WWW-Authenticate", "Bearer"))
    return Answer(meaning.status, msgspec.json.encode(body), headers, code.value)


def throttled(wait_s: float, policy: str, standing: str) -> Answer:
    """429 with the rule and where the client stands (draft-ietf-httpapi-ratelimit-headers-10)."""
    answer = problem(Code.THROTTLED, retry_after_s=wait_s)
    headers = (*answer.headers, ("RateLimit-Policy", policy), ("RateLimit", standing))
    return msgspec.structs.replace(answer, headers=headers)


def spread(answer: Answer, dice: Random) -> Answer:
    """The refusal with a Retry-After of its own: those refused together shall not return together."""
    seconds = dict(answer.headers).get("Retry-After")
    if seconds is None:
        return answer
    later = str(int(seconds) + dice.randint(0, JITTER_SECONDS_MAX))
    headers = tuple((n, later if n == "Retry-After" else v) for n, v in answer.headers)
    return msgspec.structs.replace(answer, headers=headers)


def _bounded(seconds: float) -> str:
    return str(min(max(math.ceil(seconds), 1), RETRY_AFTER_SECONDS_MAX))


# Failures that are the same problem whatever they say; None: the failure says it itself.
_FAILURES: Final[tuple[tuple[type[DoorbusterError], Code, str | None], ...]] = (
    (UnknownSale, Code.UNKNOWN_SALE, ""),
    (UnknownReservation, Code.NOT_FOUND, ""),
    (StaleEpoch, Code.UNAVAILABLE, None),
    (Overloaded, Code.OVERLOADED, None),
    # What a server's error says is for the log.
    (Unavailable, Code.UNAVAILABLE, OUTCOME_UNKNOWN),
)


def problem_of(error: DoorbusterError) -> Answer | None:
    """What a failure of the engine is over HTTP; None for one that no caller should meet."""
    if isinstance(error, InvalidDocument):
        return invalid([FieldError(p.field, p.problem) for p in error.problems])
    if isinstance(error, Invalid):
        return invalid([FieldError(error.field, error.problem)])
    if isinstance(error, Conflict):
        known = error.code in _CODE_WORDS
        return problem(Code(error.code) if known else Code.CONFLICT, str(error))
    for kind, code, detail in _FAILURES:
        if isinstance(error, kind):
            return problem(code, str(error) if detail is None else detail)
    return None


def invalid(errors: Sequence[FieldError]) -> Answer:
    """`invalid_request` with every problem by field."""
    return problem(Code.INVALID_REQUEST, detail_of(errors), errors=tuple(errors))


def detail_of(errors: Sequence[FieldError], more: str = "and {count} more") -> str:
    """The first of them in a line, and how many more there are."""
    lines = [f"{e.field}: {e.problem}" if e.field else e.problem for e in errors[:3]]
    if len(errors) > 3:
        lines.append(more.format(count=len(errors) - 3))
    return "; ".join(lines)
