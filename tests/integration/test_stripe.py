"""What the Stripe adapter makes of events that are stale, foreign or nothing to us, and of odd answers."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.clock import ManualClock
from engine.config import Settings, StripeCapture
from engine.errors import ConfigError, ProviderUnavailable
from engine.payment.http import HttpReply
from engine.payment.provider import (
    ActionKind,
    Charge,
    ChargeStatus,
    PaymentRequest,
    ProviderRefused,
    WebhookRefused,
)
from engine.payment.stripe import SEARCHABLE_MS, VERSION, Stripe, make_stripe
from engine.payment.stripe_signing import HEADER, signature_header

INTENT: dict[str, Any] = {
    "id": "pi_1",
    "object": "payment_intent",
    "status": "requires_payment_method",
    "amount": 129_900,
    "amount_received": 0,
    "amount_capturable": 0,
    "currency": "usd",
    "client_secret": "pi_1_secret_2",
    "metadata": {"payment_id": "pay_1"},
    "latest_charge": None,
}
PAID = INTENT | {"status": "succeeded", "amount_received": 129_900}
REQUEST = PaymentRequest("pay_1", 129_900, "USD", description="Order 1")
CHARGE = Charge("pay_1", 129_900, "USD", ManualClock().now_ms(), provider_ref="pi_1")


class Api:
    """Answers what the test says, by method and the path's end, and remembers what it was asked."""

    def __init__(self, **says: Any) -> None:
        self.says = says
        self.asked: list[tuple[str, str, dict[str, list[str]], Mapping[str, str]]] = []

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        return self._answer("post", url, parse_qs(body.decode()), headers)

    async def get(self, url: str, headers: Mapping[str, str], *, bytes_max: int = 0) -> HttpReply:
        return self._answer("get", url, parse_qs(urlsplit(url).query), headers)

    def _answer(self, method: str, url: str, wish: Any, headers: Mapping[str, str]) -> HttpReply:
        path = urlsplit(url).path
        self.asked.append((method, path, wish, headers))
        says = self.says[f"{method}_{path.rpartition('/')[2]}"]
        status, body = says if isinstance(says, tuple) else (200, says)
        return HttpReply(status, body if isinstance(body, bytes) else json.dumps(body).encode())


def stripe_of(api: Api, **changes: Any) -> Stripe:
    settings = Settings(
        **{
            "stripe_secret_key": "sk_1",
            "stripe_publishable_key": "pk_1",
            "stripe_webhook_secrets": "whsec_old, whsec_new",
            "public_url": "https://shop/",
        }
        | changes
    )
    made = make_stripe(settings, api, ManualClock())
    assert made is not None
    return made


async def told(thing: object, kind: str = "payment_intent.succeeded", **changes: Any) -> Any:
    stripe, now_ms = stripe_of(Api()), ManualClock().now_ms()
    event = {"id": "evt_1", "type": kind, "data": {"object": thing}} | changes
    body = json.dumps(event).encode()
    headers = {HEADER: signature_header(["whsec_new"], body, now_ms // 1000)}
    return await stripe.parse_webhook(headers, body, now_ms)


async def test_intent_is_made_once_by_our_name_with_a_pinned_version() -> None:
    api = Api(post_payment_intents=INTENT)
    made = await stripe_of(api).create(REQUEST)
    assert made.status is ChargeStatus.PENDING
    assert made.action is not None
    assert (made.action.kind, made.action.client_secret) == (
        ActionKind.CLIENT_SECRET,
        "pi_1_secret_2",
    )
    assert made.action.publishable_key == "pk_1"
    ((_, _, wish, headers),) = api.asked
    assert (wish["amount"], wish["currency"]) == (["129900"], ["usd"])
    assert wish["metadata[payment_id]"] == ["pay_1"]
    assert wish["capture_method"] == ["automatic"]
    assert headers["Idempotency-Key"] == "create:pay_1"
    assert headers["Stripe-Version"] == VERSION
    assert headers["Authorization"] == "Bearer sk_1"


@pytest.mark.parametrize("by", ["setting", "option"])
async def test_authorizing_first_is_a_setting_and_an_option(by: str) -> None:
    api = Api(post_payment_intents=INTENT)
    setting = {"stripe_capture": StripeCapture.MANUAL} if by == "setting" else {}
    options: dict[str, object] = {} if by == "setting" else {"capture_method": "manual"}
    await stripe_of(api, **setting).create(PaymentRequest("pay_1", 1, "USD", options))
    assert api.asked[0][2]["capture_method"] == ["manual"]


async def test_bank_that_wants_to_see_the_buyer_is_where_the_browser_goes() -> None:
    redirect = {"redirect_to_url": {"url": "https://bank/3ds"}}
    api = Api(post_payment_intents=INTENT | {"status": "requires_action", "next_action": redirect})
    options: dict[str, object] = {"payment_method": "pm_1"}
    request = PaymentRequest("pay_1", 129_900, "USD", options, return_path="/done")
    made = await stripe_of(api).create(request)
    assert made.action is not None
    assert (made.action.kind, made.action.url) == (ActionKind.REDIRECT, "https://bank/3ds")
    assert api.asked[0][2]["return_url"] == ["https://shop/done"]


@pytest.mark.parametrize(
    ("changes", "status", "amount"),
    [
        ({}, ChargeStatus.PENDING, 129_900),
        ({"status": "processing"}, ChargeStatus.PENDING, 129_900),
        ({"status": "requires_capture", "amount_capturable": 9}, ChargeStatus.AUTHORIZED, 9),
        ({"status": "succeeded", "amount_received": 9}, ChargeStatus.CAPTURED, 9),
        ({"status": "canceled"}, ChargeStatus.FAILED, 129_900),
    ],
)
async def test_intent_is_told_by_the_amount_that_counts(
    changes: dict[str, Any], status: ChargeStatus, amount: int
) -> None:
    result = (await told(INTENT | changes)).result
    assert (result.status, result.amount_minor, result.currency) == (status, amount, "USD")


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        (INTENT | {"metadata": {}}, "payment_intent.created"),  # Not ours.
        (
            {"object": "charge", "refunded": False, "metadata": {"payment_id": "p"}},
            "charge.refunded",
        ),
        ({"object": "customer"}, "customer.created"),
        (
            {"object": "refund", "status": "pending", "metadata": {"payment_id": "p"}},
            "refund.created",
        ),
    ],
)
async def test_events_that_are_nothing_to_us_are_taken_and_ignored(
    thing: dict[str, Any], kind: str
) -> None:
    assert (await told(thing, kind)).result is None


async def test_charge_that_was_given_back_by_hand_is_told() -> None:
    charge = {"object": "charge", "refunded": True, "metadata": {"payment_id": "pay_1"}}
    assert (await told(charge, "charge.refunded")).result.status is ChargeStatus.REFUNDED


@pytest.mark.parametrize(
    ("thing", "changes"),
    [
        (INTENT | {"status": "lost"}, {}),
        (INTENT | {"amount": "9"}, {}),
        (INTENT | {"metadata": {"payment_id": 7}}, {"id": ""}),
        (INTENT, {"id": "e" * 129}),
        (None, {}),
        (INTENT, {"data": None}),
    ],
)
async def test_signed_nonsense_is_refused(thing: object, changes: dict[str, Any]) -> None:
    with pytest.raises(WebhookRefused):
        await told(thing, **changes)


@pytest.mark.parametrize(
    "says",
    [(500, b""), (429, b"{}"), (401, b"{}"), (409, b"{}"), b"<html>", b"[]", {"id": "pi_1"}],
)
async def test_answer_that_decides_nothing_leaves_the_outcome_unknown(says: Any) -> None:
    with pytest.raises(ProviderUnavailable):
        await stripe_of(Api(post_payment_intents=says)).create(REQUEST)


async def test_refusal_is_told_in_stripes_words() -> None:
    error = {"error": {"code": "amount_too_small", "message": "At least $0.50."}}
    with pytest.raises(ProviderRefused, match=r"amount_too_small At least \$0\.50"):
        await stripe_of(Api(post_payment_intents=(400, error))).create(REQUEST)


async def test_charge_of_unknown_name_is_searched_and_not_given_up_while_it_may_be_too_new() -> (
    None
):
    unnamed = Charge("pay_1", 1, "USD", ManualClock().now_ms())
    api = Api(get_search={"data": []})
    for verb in ("query", "cancel", "refund"):  # An answer: no breaker is to open for it.
        assert (await getattr(stripe_of(api), verb)(unnamed)).status is ChargeStatus.PENDING
    assert api.asked[0][2]["query"] == ["metadata['payment_id']:'pay_1'"]
    old = Charge("pay_1", 1, "USD", ManualClock().now_ms() - SEARCHABLE_MS)
    assert (await stripe_of(api).query(old)).status is ChargeStatus.UNKNOWN


@pytest.mark.parametrize("verb", ["capture", "cancel"])
async def test_move_that_the_state_does_not_allow_is_answered_by_the_state(verb: str) -> None:
    error = (400, {"error": {"code": "payment_intent_unexpected_state"}})
    api = Api(**{"get_pi_1": PAID, f"post_{verb}": error})
    moved = await getattr(stripe_of(api), verb)(CHARGE)
    assert moved.status is ChargeStatus.CAPTURED
    # A key would bring the same refusal again for a day, though the state has changed meanwhile.
    assert not any("Idempotency-Key" in headers for *_, headers in api.asked)


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["succeeded"], ChargeStatus.REFUNDED),
        (["pending"], ChargeStatus.PENDING),
        (["succeeded", "pending"], ChargeStatus.PENDING),
        (["failed", "succeeded"], ChargeStatus.REFUNDED),
        ([], ChargeStatus.PENDING),
    ],
)
async def test_refund_asked_for_before_is_followed_by_its_own_state(
    statuses: list[str], status: ChargeStatus
) -> None:
    refunds = {"data": [{"status": word} for word in statuses]}
    api = Api(get_pi_1=PAID | {"latest_charge": {"refunded": True}}, get_refunds=refunds)
    assert (await stripe_of(api).refund(CHARGE)).status is status
    assert all(method == "get" for method, *_ in api.asked)


async def test_refund_that_failed_at_the_bank_is_for_a_person_and_not_tried_over_and_over() -> None:
    failed = {"data": [{"status": "failed", "failure_reason": "lost_or_stolen_card"}]}
    api = Api(get_pi_1=PAID | {"latest_charge": {"refunded": False}}, get_refunds=failed)
    answer = await stripe_of(api).refund(CHARGE)
    assert (answer.status, answer.detail) == (ChargeStatus.FAILED, "lost_or_stolen_card")
    assert all(method == "get" for method, *_ in api.asked)


async def test_refund_is_asked_for_by_the_state_and_one_made_meanwhile_is_waited_for() -> None:
    api = Api(get_pi_1=PAID, get_refunds={"data": []}, post_refunds={"status": "pending"})
    assert (await stripe_of(api).refund(CHARGE)).status is ChargeStatus.PENDING
    method, path, wish, headers = api.asked[-1]
    assert (method, path, wish["payment_intent"]) == ("post", "/v1/refunds", ["pi_1"])
    assert "Idempotency-Key" not in headers
    api.says["post_refunds"] = (400, {"error": {"code": "charge_already_refunded"}})
    assert (await stripe_of(api).refund(CHARGE)).status is ChargeStatus.PENDING


async def test_try_repeated_after_the_settings_changed_is_asked_about_and_not_called_failed() -> (
    None
):
    error = {"error": {"type": "idempotency_error", "message": "Keys for idempotent requests …"}}
    api = Api(post_payment_intents=(400, error), get_search={"data": [PAID]}, get_pi_1=PAID)
    assert (await stripe_of(api).create(REQUEST)).status is ChargeStatus.CAPTURED
    api.says["get_search"] = {"data": []}
    assert (await stripe_of(api).create(REQUEST)).status is ChargeStatus.PENDING


@pytest.mark.parametrize(
    ("secret", "livemode", "counts"),
    [("sk_live_1", True, True), ("sk_live_1", False, False), ("sk_test_1", False, True)],
)
async def test_money_of_stripes_test_mode_pays_no_real_order(
    secret: str, livemode: bool, counts: bool
) -> None:
    stripe = stripe_of(Api(), stripe_secret_key=secret)
    event = {"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": PAID}}
    result = stripe.read_event(json.dumps(event | {"livemode": livemode}).encode()).result
    assert (result is not None) is counts


async def test_event_keeps_what_the_buyers_browser_needs_and_says_when_money_moved() -> None:
    pending = (await told(INTENT, "payment_intent.created")).result
    assert pending.action.publishable_key == "pk_1"
    paid = (await told(PAID, created=1_794_355_199)).result
    assert paid.at_ms == 1_794_355_199_000
    charge = {"object": "charge", "refunded": True, "metadata": {"payment_id": "pay_1"}}
    back = (await told(charge, "charge.refunded", created=1_794_355_200)).result
    assert back.at_ms == 1_794_355_200_000


@pytest.mark.parametrize("nonsense", [[], {}, 1, None])
async def test_buyers_nonsense_in_options_is_refused_in_words(nonsense: object) -> None:
    with pytest.raises(ProviderRefused):
        await stripe_of(Api()).create(
            PaymentRequest("pay_1", 1, "USD", {"capture_method": nonsense})
        )


async def test_statement_is_read_page_by_page() -> None:
    line = {
        "id": "txn_1",
        "type": "charge",
        "source": {
            "id": "ch_1",
            "amount": 5,
            "currency": "usd",
            "payment_intent": "pi_1",
            "metadata": {"payment_id": "pay_1"},
        },
    }
    api = Api(get_balance_transactions={"data": [line], "has_more": True})
    answers = iter([True, False])
    answer = api._answer

    def page(*about: Any) -> HttpReply:
        api.says["get_balance_transactions"]["has_more"] = next(answers)
        return answer(*about)

    api._answer = page  # type: ignore[method-assign]
    day = date(2026, 11, 11)
    assert len(await stripe_of(api).statement(day)) == 2
    assert [wish.get("starting_after") for _, _, wish, _ in api.asked] == [None, ["txn_1"]]
    assert api.asked[0][2]["created[gte]"] == ["1794355200"]


def test_half_configured_stripe_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="DOORBUSTER_STRIPE_WEBHOOK_SECRETS"):
        make_stripe(Settings(stripe_secret_key="sk_1"), Api(), ManualClock())
    assert make_stripe(Settings(), Api(), ManualClock()) is None
