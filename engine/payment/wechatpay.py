"""WeChat Pay v3: QR and H5 payments, queries, refunds, closing, notifications, bills.

Leaves signing and certificates to `wechatpay_link`.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from hashlib import sha1
from typing import Any, Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from engine.clock import Clock
from engine.config import Settings
from engine.errors import ProviderUnavailable
from engine.ids import RandomIds
from engine.payment import wechatpay_bill
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
    StatementUnreadable,
    WebhookEvent,
    WebhookRefused,
)
from engine.payment.shop_url import shop_url
from engine.payment.wechatpay_link import Merchant, NotGenuine, Said, WeChatPayLink
from engine.payment.wechatpay_signing import Sealed, opened_object

NAME: Final = "wechatpay"
API: Final = "https://api.mch.weixin.qq.com"
NEEDED: Final = (
    "wechatpay_app_id",
    "wechatpay_mch_id",
    "wechatpay_serial",
    "wechatpay_private_key",
    "wechatpay_api_v3_secret",
)
CURRENCY: Final = "CNY"
BEIJING: Final = timezone(timedelta(hours=8))
DESCRIPTION_MAX: Final = 127
EVENT_ID_MAX: Final = 128
NO_ORDER: Final = frozenset({"ORDER_NOT_EXIST", "ORDERNOTEXIST", "RESOURCE_NOT_EXISTS"})
# What a repeated order is told once the first one was paid, closed or has other terms: a query tells.
USED: Final = frozenset({"ORDERPAID", "ORDER_PAID", "ORDER_CLOSED", "OUT_TRADE_NO_USED"})
NO_BILL: Final = "NO_STATEMENT_EXIST"
BILL_IN_WORK: Final = "STATEMENT_CREATING"
STATUSES: Final = {
    "SUCCESS": ChargeStatus.CAPTURED,
    "REFUND": ChargeStatus.CAPTURED,  # A refund was asked for; whether it is done it says itself.
    "NOTPAY": ChargeStatus.PENDING,
    "USERPAYING": ChargeStatus.PENDING,
    "CLOSED": ChargeStatus.FAILED,
    "REVOKED": ChargeStatus.FAILED,
    "PAYERROR": ChargeStatus.FAILED,
}
REFUND_STATUSES: Final = {
    "SUCCESS": ChargeStatus.REFUNDED,
    "PROCESSING": ChargeStatus.PENDING,
    "CLOSED": ChargeStatus.FAILED,
    "ABNORMAL": ChargeStatus.FAILED,  # The buyer's card is gone: for a person.
}


class WeChatPay:
    """Implements `provider.Provider`. `shop` is where this shop is reached."""

    name = NAME
    offer = Offer(frozenset({CURRENCY}), (ActionKind.QR_CODE, ActionKind.REDIRECT))
    acknowledgement = Acknowledgement(
        '{"code":"SUCCESS","message":"成功"}'.encode(), "application/json"
    )
    bill_offset_hours = 8

    def __init__(self, link: WeChatPayLink, merchant: Merchant, *, shop: str) -> None:
        self._link = link
        self._merchant = merchant
        self._shop = shop

    async def create(self, request: PaymentRequest) -> ProviderResult:
        """A QR code; with the option `{"trade_type": "h5"}` an address for a phone's browser."""
        kind = request.options.get("trade_type", "native")
        if kind not in ("native", "h5"):  # Anything may stand there, what no set can hold, too.
            raise ProviderRefused("options.trade_type must be native or h5.")
        said = await self._link.ask(
            "POST", f"/v3/pay/transactions/{kind}", self._order(request, h5=kind == "h5")
        )
        if said.code in USED:
            return await self.query(_charge(request))
        _accept(said)
        return ProviderResult(
            request.payment_id,
            ChargeStatus.PENDING,
            request.amount_minor,
            request.currency,
            action=self._action(request, said),
        )

    async def query(self, charge: Charge) -> ProviderResult:
        mch_id, order = quote(self._merchant.mch_id), _segment(charge.payment_id)
        said = await self._link.ask(
            "GET", f"/v3/pay/transactions/out-trade-no/{order}?mchid={mch_id}"
        )
        if said.status == 404 and said.code in NO_ORDER:
            return ProviderResult(charge.payment_id, ChargeStatus.UNKNOWN)
        trade = _accept(said)
        result = self._result(trade, charge.payment_id)
        if trade.get("trade_state") != "REFUND":
            return result
        refund = await self._refund_of(charge.payment_id)
        return refund if refund.status is ChargeStatus.REFUNDED else result

    async def capture(self, charge: Charge) -> ProviderResult:
        """WeChat takes the money when the buyer pays."""
        return await self.query(charge)

    async def cancel(self, charge: Charge) -> ProviderResult:
        """Closes the order; where that is refused, a query tells why."""
        path = f"/v3/pay/transactions/out-trade-no/{_segment(charge.payment_id)}/close"
        await self._link.ask("POST", path, {"mchid": self._merchant.mch_id})
        return await self.query(charge)

    async def refund(self, charge: Charge) -> ProviderResult:
        """All that was paid, which need not be what was asked for."""
        paid = await self.query(charge)
        if paid.status is not ChargeStatus.CAPTURED:
            return paid
        content = {
            "out_trade_no": charge.payment_id,
            "out_refund_no": charge.payment_id,  # Repeated, it is the same refund.
            "notify_url": self._notify_url,
            "amount": {
                "refund": paid.amount_minor,
                "total": paid.amount_minor,
                "currency": paid.currency,
            },
        }
        said = await self._link.ask("POST", "/v3/refund/domestic/refunds", content)
        return _refund_result(_accept(said), charge.payment_id)

    async def parse_webhook(
        self, headers: Mapping[str, str], body: bytes, now_ms: int
    ) -> WebhookEvent:
        try:
            await self._link.verify(headers, body, now_ms)
        except NotGenuine as error:
            raise WebhookRefused(f"WeChat Pay: {error}") from error
        return self.read_event(body)

    def read_event(self, body: bytes) -> WebhookEvent:
        try:
            event = json.loads(body)
            event_id, kind = str(event["id"]), str(event["event_type"])
            resource = opened_object(self._merchant.secret, event["resource"])
            result = self._told(kind, resource)
        except (KeyError, TypeError, ValueError, Sealed, ProviderUnavailable) as error:
            raise WebhookRefused(f"WeChat Pay: the notification makes no sense: {error}") from error
        if not 0 < len(event_id) <= EVENT_ID_MAX:
            raise WebhookRefused("WeChat Pay: the notification has no usable id.")
        return WebhookEvent(event_id, result)

    async def statement(self, day: date) -> Sequence[StatementLine]:
        said = await self._link.ask(
            "GET", f"/v3/bill/tradebill?bill_date={day}&bill_type=ALL&tar_type=GZIP"
        )
        if said.code == NO_BILL:
            return []  # Nobody paid on that day.
        if said.code == BILL_IN_WORK:
            raise ProviderUnavailable(f"WeChat Pay still writes the bill of {day}.")
        ticket = _accept(said)
        reply = await self._link.send(
            "GET", str(ticket.get("download_url")), bytes_max=STATEMENT_BYTES_MAX
        )
        if reply.status != 200:
            raise ProviderUnavailable(f"WeChat Pay answered {reply.status} for the bill of {day}.")
        # The file is not signed, but the address to it was, with the hash of what is in it.
        digest = str(ticket.get("hash_value")).lower()
        return await asyncio.to_thread(_read_bill, reply.body, digest)  # For seconds.

    @property
    def _notify_url(self) -> str:
        return f"{self._shop}{WEBHOOK_PATH}{NAME}"

    def _order(self, request: PaymentRequest, *, h5: bool) -> dict[str, object]:
        order: dict[str, object] = {
            "appid": self._merchant.app_id,
            "mchid": self._merchant.mch_id,
            "description": request.description[:DESCRIPTION_MAX] or request.payment_id,
            "out_trade_no": request.payment_id,
            "notify_url": self._notify_url,
            "amount": {"total": request.amount_minor, "currency": request.currency},
        }
        if request.expires_at_ms is not None:
            order["time_expire"] = time_of(request.expires_at_ms)
        if h5:
            address = request.client_address or "127.0.0.1"
            order["scene_info"] = {"payer_client_ip": address, "h5_info": {"type": "Wap"}}
        return order

    def _action(self, request: PaymentRequest, said: Said) -> Action:
        """Raises ProviderUnavailable for an answer without what it is asked for."""
        code, url = said.body.get("code_url"), said.body.get("h5_url")
        if isinstance(code, str):
            return Action(ActionKind.QR_CODE, code=code)
        if not isinstance(url, str):
            raise ProviderUnavailable("WeChat Pay answered without a way to pay.")
        if request.return_path is not None:
            url += f"&redirect_url={quote(self._shop + request.return_path, safe='')}"
        return Action(ActionKind.REDIRECT, url=url)

    def _told(self, kind: str, resource: Mapping[str, Any]) -> ProviderResult | None:
        """What a notification says; None for what is nothing to us. Raises as `_result`."""
        payment_id = str(resource["out_trade_no"])
        if kind.startswith("TRANSACTION."):
            return self._result(resource, payment_id)
        if not kind.startswith("REFUND."):
            return None
        if resource.get("mchid") != self._merchant.mch_id:
            raise ValueError("it is of another merchant")
        amount = resource["amount"]
        if amount["refund"] != amount["total"]:
            return None  # A part, paid back by hand: reconciliation lists it.
        return _refund_result(resource, payment_id)

    def _result(self, trade: Mapping[str, Any], payment_id: str) -> ProviderResult:
        """What a trade says. Raises ProviderUnavailable where it is not ours or makes no sense."""
        try:
            ours = (payment_id, self._merchant.mch_id, self._merchant.app_id)
            if (trade["out_trade_no"], trade["mchid"], trade["appid"]) != ours:
                raise ValueError("it is of another order or merchant")
            state, amount = str(trade["trade_state"]), trade.get("amount") or {}
            status = STATUSES[state]
            if status is ChargeStatus.CAPTURED and not isinstance(amount.get("total"), int):
                raise ValueError("it was paid, and says not what")
            return ProviderResult(
                payment_id,
                status,
                amount.get("total"),
                amount.get("currency") or CURRENCY,
                trade.get("transaction_id") or None,
                state.lower() if status is ChargeStatus.FAILED else None,
                at_ms=_ms_of(trade.get("success_time")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProviderUnavailable(f"WeChat Pay tells a trade amiss: {error}") from error

    async def _refund_of(self, payment_id: str) -> ProviderResult:
        said = await self._link.ask("GET", f"/v3/refund/domestic/refunds/{_segment(payment_id)}")
        if said.status == 404:
            return ProviderResult(payment_id, ChargeStatus.UNKNOWN)  # Paid back by hand, in part.
        return _refund_result(_accept(said), payment_id)


def make_wechatpay(settings: Settings, http: HttpClient, clock: Clock) -> WeChatPay | None:
    """None where it is not configured. Raises ConfigError."""
    if not is_configured(settings, "WeChat Pay", NEEDED):
        return None
    merchant = Merchant(
        settings.wechatpay_mch_id or "",
        settings.wechatpay_app_id or "",
        settings.wechatpay_serial or "",
        read_private_key(settings, "wechatpay_private_key"),
        (settings.wechatpay_api_v3_secret or "").encode(),
        _given_key(settings),
    )
    link = WeChatPayLink(http, clock, RandomIds(), merchant, settings.wechatpay_url or API)
    return WeChatPay(link, merchant, shop=shop_url(settings))


def _given_key(settings: Settings) -> tuple[str, RSAPublicKey] | None:
    """WeChat Pay's own key with its id, where the merchant was given one. Raises ConfigError."""
    names = ("wechatpay_public_key_id", "wechatpay_public_key")
    if not is_configured(settings, "WeChat Pay's public key", names):
        return None
    return settings.wechatpay_public_key_id or "", read_public_key(settings, names[1])


def _read_bill(data: bytes, digest: str) -> list[StatementLine]:
    """Raises StatementUnreadable."""
    lines = wechatpay_bill.read_bill(data)
    if sha1(wechatpay_bill.unpacked(data), usedforsecurity=False).hexdigest() != digest:
        raise StatementUnreadable("The bill of WeChat Pay was changed on its way.")
    return lines


def time_of(ms: int) -> str:
    """RFC 3339, Beijing's, to the second."""
    moment = datetime.fromtimestamp(ms // 1000, UTC).astimezone(BEIJING)
    return moment.isoformat(timespec="seconds")


def _ms_of(text: object) -> int | None:
    try:
        return int(datetime.fromisoformat(str(text)).timestamp() * 1000)
    except ValueError:
        return None


def _segment(payment_id: str) -> str:
    return quote(payment_id, safe="")


def _charge(request: PaymentRequest) -> Charge:
    return Charge(request.payment_id, request.amount_minor, request.currency)


def _accept(said: Said) -> dict[str, Any]:
    if said.status not in {200, 204}:
        reason = f"{said.code} {said.body.get('message', '')}"[:200]
        raise ProviderRefused(f"WeChat Pay refused it: {said.status} {reason}")
    return said.body


def _refund_result(refund: Mapping[str, Any], payment_id: str) -> ProviderResult:
    """What a refund says, in an answer (`status`) or a notification (`refund_status`)."""
    state = str(refund.get("status") or refund.get("refund_status"))
    status = REFUND_STATUSES.get(state)
    if refund.get("out_trade_no", payment_id) != payment_id or status is None:
        raise ProviderUnavailable("WeChat Pay tells a refund amiss.")
    failed = status is ChargeStatus.FAILED
    return ProviderResult(
        payment_id,
        status,
        detail=f"refund {state.lower()}" if failed else None,
        at_ms=_ms_of(refund.get("success_time")),
    )
