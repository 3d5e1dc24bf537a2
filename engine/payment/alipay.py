"""Alipay: page payments, queries, refunds, closing, notifications. Signatures are `alipay_signing`."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from engine.clock import Clock
from engine.config import Settings
from engine.errors import ProviderUnavailable
from engine.payment import alipay_bill
from engine.payment.alipay_signing import (
    Forged,
    read_form,
    signed_params,
    signed_url,
    verified_answer,
    verified_notice,
)
from engine.payment.amounts import fen_of_yuan, yuan_text
from engine.payment.http import STATEMENT_BYTES_MAX, HttpClient
from engine.payment.keys import is_configured, read_private_key, read_public_key
from engine.payment.provider import (
    WEBHOOK_PATH,
    Acknowledgement,
    Action,
    ActionKind,
    Charge,
    ChargeStatus,
    Offer,
    PaymentRequest,
    ProviderRefused,
    ProviderResult,
    StatementLine,
    WebhookEvent,
    WebhookRefused,
)
from engine.payment.shop_url import shop_url

NAME: Final = "alipay"
GATEWAY: Final = "https://openapi.alipay.com/gateway.do"
NEEDED: Final = (
    "alipay_app_id",
    "alipay_seller_id",
    "alipay_private_key",
    "alipay_public_key",
)
CURRENCY: Final = "CNY"
BEIJING: Final = timezone(timedelta(hours=8))
TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"
SUBJECT_MAX: Final = 256
EVENT_ID_MAX: Final = 128
OK: Final = "10000"
BUSY: Final = frozenset({"20000", "10003"})  # The gateway is at fault, or still at work.
NO_TRADE: Final = "ACQ.TRADE_NOT_EXIST"
# Between the deadline and the moment from which a trade that was never begun cannot be begun: the
# gateway's clock and ours.
SLACK_MS: Final = 5000
STATUSES: Final = {
    "WAIT_BUYER_PAY": ChargeStatus.PENDING,
    "TRADE_SUCCESS": ChargeStatus.CAPTURED,
    "TRADE_FINISHED": ChargeStatus.CAPTURED,
    "TRADE_CLOSED": ChargeStatus.FAILED,  # or paid back: see `_status`
}


class Alipay:
    """Implements `provider.Provider`. `url` is the gateway, `shop` where this shop is reached."""

    name = NAME
    offer = Offer(frozenset({CURRENCY}), (ActionKind.REDIRECT,))
    acknowledgement = Acknowledgement(b"success", "text/plain")
    bill_offset_hours = 8

    def __init__(
        self,
        http: HttpClient,
        clock: Clock,
        *,
        app_id: str,
        seller_id: str,
        private_key: RSAPrivateKey,
        alipay_key: RSAPublicKey,
        shop: str,
        url: str = GATEWAY,
    ) -> None:
        self._http = http
        self._clock = clock
        self._app_id = app_id
        self._seller_id = seller_id
        self._key = private_key
        self._alipay_key = alipay_key
        self._shop = shop
        self._url = url

    async def create(self, request: PaymentRequest) -> ProviderResult:
        """Asks nobody: the buyer's browser brings the signed wish to the gateway."""
        content = {
            "out_trade_no": request.payment_id,
            "total_amount": yuan_text(request.amount_minor),
            "subject": request.description[:SUBJECT_MAX] or request.payment_id,
            "product_code": "FAST_INSTANT_TRADE_PAY",
        }
        if request.expires_at_ms is not None:
            content["time_expire"] = time_of(request.expires_at_ms)
        more = {"notify_url": f"{self._shop}{WEBHOOK_PATH}{NAME}"}
        if request.return_path is not None:
            more["return_url"] = self._shop + request.return_path
        params = self._params("alipay.trade.page.pay", content) | more
        return ProviderResult(
            request.payment_id,
            ChargeStatus.PENDING,
            request.amount_minor,
            request.currency,
            action=Action(ActionKind.REDIRECT, url=signed_url(self._url, params, self._key)),
        )

    async def query(self, charge: Charge) -> ProviderResult:
        answer = await self._ask("alipay.trade.query", {"out_trade_no": charge.payment_id})
        if answer.get("sub_code") == NO_TRADE:
            return self._not_begun(charge)
        return _result(charge.payment_id, _accepted(answer))

    async def capture(self, charge: Charge) -> ProviderResult:
        """Alipay takes the money when the buyer pays."""
        return await self.query(charge)

    async def cancel(self, charge: Charge) -> ProviderResult:
        """Closes the trade; where that is refused, a query tells why."""
        await self._ask("alipay.trade.close", {"out_trade_no": charge.payment_id})
        return await self.query(charge)

    async def refund(self, charge: Charge) -> ProviderResult:
        """All that was paid, which need not be what was asked for."""
        paid = await self.query(charge)
        if paid.status is not ChargeStatus.CAPTURED or paid.amount_minor is None:
            return paid
        content = {
            "out_trade_no": charge.payment_id,
            "refund_amount": yuan_text(paid.amount_minor),
            "out_request_no": charge.payment_id,  # Repeated, it is the same refund.
        }
        _accepted(await self._ask("alipay.trade.refund", content))
        # That it was accepted is not that it was done: the trade tells.
        done = await self.query(charge)
        if done.status is ChargeStatus.CAPTURED:
            return ProviderResult(charge.payment_id, ChargeStatus.PENDING)
        return done

    async def parse_webhook(
        self,
        headers: Mapping[str, str],  # noqa: ARG002
        body: bytes,
        now_ms: int,  # noqa: ARG002  # Alipay resends the same for 25 hours: age says nothing.
    ) -> WebhookEvent:
        try:
            notice = verified_notice(body, self._alipay_key)
        except (Forged, ValueError) as error:
            raise WebhookRefused(f"Alipay: {error}") from error
        self._check_ours(notice)
        return _event(notice)

    def read_event(self, body: bytes) -> WebhookEvent:
        try:
            return _event(read_form(body))
        except ValueError as error:
            raise WebhookRefused(f"Alipay: {error}") from error

    async def statement(self, day: date) -> Sequence[StatementLine]:
        content = {"bill_type": "trade", "bill_date": day.isoformat()}
        answer = _accepted(
            await self._ask("alipay.data.dataservice.bill.downloadurl.query", content)
        )
        reply = await self._http.get(
            str(answer.get("bill_download_url")), {}, bytes_max=STATEMENT_BYTES_MAX
        )
        if reply.status != 200:
            raise ProviderUnavailable(f"Alipay answered {reply.status} for the bill of {day}.")
        return await asyncio.to_thread(alipay_bill.read_bill, reply.body)  # For seconds.

    def _not_begun(self, charge: Charge) -> ProviderResult:
        """The buyer was sent there and may still come, until the deadline that the gateway keeps."""
        may_come = self._clock.now_ms() < charge.expires_at_ms + SLACK_MS
        status = ChargeStatus.PENDING if may_come else ChargeStatus.UNKNOWN
        return ProviderResult(charge.payment_id, status)

    def _check_ours(self, notice: Mapping[str, str]) -> None:
        """Alipay's signature says that it speaks, not that it speaks of us."""
        if notice.get("app_id") != self._app_id or notice.get("seller_id") != self._seller_id:
            raise WebhookRefused("Alipay: the notification is of another merchant.")

    def _params(self, method: str, content: Mapping[str, str]) -> dict[str, str]:
        return {
            "app_id": self._app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": time_of(self._clock.now_ms()),
            "version": "1.0",
            "biz_content": json.dumps(content, ensure_ascii=False, separators=(",", ":")),
        }

    async def _ask(self, method: str, content: Mapping[str, str]) -> dict[str, Any]:
        """A signed answer. Raises ProviderUnavailable for anything else."""
        params = signed_params(self._params(method, content), self._key)
        reply = await self._http.post(
            self._url,
            urlencode(params).encode(),
            {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"},
        )
        if reply.status != 200:
            raise ProviderUnavailable(f"Alipay answered {reply.status}.")
        try:
            answer = verified_answer(
                reply.body, method.replace(".", "_") + "_response", self._alipay_key
            )
        except (Forged, ValueError) as error:
            raise ProviderUnavailable(f"Alipay answered nonsense: {error}") from error
        if answer.get("code") in BUSY or answer.get("sub_code") == "ACQ.SYSTEM_ERROR":
            raise ProviderUnavailable(f"Alipay is not fit to answer: {_complaint(answer)}")
        return answer


def make_alipay(settings: Settings, http: HttpClient, clock: Clock) -> Alipay | None:
    """None where it is not configured. Raises ConfigError."""
    if not is_configured(settings, "Alipay", NEEDED):
        return None
    return Alipay(
        http,
        clock,
        app_id=settings.alipay_app_id or "",
        seller_id=settings.alipay_seller_id or "",
        private_key=read_private_key(settings, "alipay_private_key"),
        alipay_key=read_public_key(settings, "alipay_public_key"),
        shop=shop_url(settings),
        url=settings.alipay_url or GATEWAY,
    )


def time_of(ms: int) -> str:
    """As Alipay writes times: Beijing's, to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(BEIJING).strftime(TIME_FORMAT)


def ms_of(text: object) -> int | None:
    """The inverse; None for what is no time."""
    try:
        moment = datetime.strptime(str(text), TIME_FORMAT).replace(tzinfo=BEIJING)
    except ValueError:
        return None
    return int(moment.timestamp() * 1000)


def _accepted(answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("code") != OK:
        raise ProviderRefused(f"Alipay refused it: {_complaint(answer)}")
    return answer


def _complaint(answer: Mapping[str, Any]) -> str:
    said = (answer.get(name) for name in ("code", "sub_code", "sub_msg", "msg"))
    return " ".join(str(word) for word in said if word)[:200]


def _event(notice: Mapping[str, str]) -> WebhookEvent:
    """Raises WebhookRefused."""
    event_id, payment_id = notice.get("notify_id", ""), notice.get("out_trade_no", "")
    if not 0 < len(event_id) <= EVENT_ID_MAX or not payment_id:
        raise WebhookRefused("Alipay: the notification names nothing.")
    try:
        result = _result(payment_id, notice)
    except ProviderUnavailable as error:
        raise WebhookRefused(str(error)) from error
    if result.status is ChargeStatus.CAPTURED and "gmt_refund" in notice:
        return WebhookEvent(event_id, None)  # A part was paid back: nothing that we ask for.
    return WebhookEvent(event_id, result)


def _result(payment_id: str, trade: Mapping[str, Any]) -> ProviderResult:
    """What a trade says, in an answer or a notification. Raises ProviderUnavailable."""
    try:
        amount_minor = fen_of_yuan(str(trade["total_amount"]))
        if trade["out_trade_no"] != payment_id:
            raise ValueError("it speaks of another payment")
        status = _status(trade)
    except (KeyError, ValueError) as error:
        raise ProviderUnavailable(f"Alipay tells a trade that makes no sense: {error}") from error
    paid_back = status is ChargeStatus.REFUNDED
    return ProviderResult(
        payment_id,
        status,
        amount_minor,
        trade.get("trans_currency") or CURRENCY,
        trade.get("trade_no") or None,
        "closed" if status is ChargeStatus.FAILED else None,
        at_ms=ms_of(
            trade.get("gmt_refund")
            if paid_back
            else trade.get("gmt_payment") or trade.get("send_pay_date")
        ),
    )


def _status(trade: Mapping[str, Any]) -> ChargeStatus:
    """A closed trade that had been paid (it says when) was paid back in full."""
    status = STATUSES[str(trade["trade_status"])]
    was_paid = any(trade.get(name) for name in ("gmt_payment", "send_pay_date", "gmt_refund"))
    return ChargeStatus.REFUNDED if status is ChargeStatus.FAILED and was_paid else status
