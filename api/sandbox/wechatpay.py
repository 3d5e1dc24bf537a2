"""WeChat Pay's side of API v3: orders, queries, refunds, closing, certificates, notifications, bills.

Verifies every request with the merchant's key; signs every answer and notice with a platform key that
can be rotated.
"""

import gzip
import json
from base64 import b64encode
from datetime import UTC, date, datetime
from hashlib import sha1
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding

from api.sandbox.gateway_keys import (
    GatewayKeys,
    forgers_key,
    make_certificate,
    new_key,
    read_key,
)
from api.sandbox.mischief import Mischief
from api.sandbox.notices import Notices, Signed
from api.sandbox.simulator import Gone, Simulator
from api.sandbox.trades import Trade, TradeBook, TradeState
from engine.clock import Clock
from engine.ids import Ids
from engine.payment.amounts import yuan_text
from engine.payment.keys import is_signed, sign_text
from engine.payment.wechatpay import BEIJING, time_of
from engine.payment.wechatpay_signing import (
    ALGORITHM,
    NONCE,
    SCHEME,
    SERIAL,
    SIGNATURE,
    TIMESTAMP,
    answer_text,
    is_timely,
    request_text,
)

STATES: Final = {
    TradeState.OPEN: "NOTPAY",
    TradeState.PAID: "SUCCESS",
    TradeState.CLOSED: "CLOSED",
    TradeState.REFUNDED: "REFUND",
}
COLUMNS: Final = (
    "交易时间,公众账号ID,商户号,微信订单号,商户订单号,交易状态,货币种类,订单金额,申请退款金额"
)
TOTALS: Final = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
)


class WeChatPayGateway(Simulator):
    """`/wechatpay/v3/…`, as WeChat's `api.mch.weixin.qq.com/v3/…`."""

    name = "wechatpay"
    title = "WeChat Pay 微信支付 (sandbox)"
    root = ""  # Where this gateway is reached: set by whoever serves it.

    def __init__(
        self, book: TradeBook, notices: Notices, clock: Clock, ids: Ids, keys: GatewayKeys
    ) -> None:
        super().__init__(book, notices, clock, ids)
        self._keys = keys
        self._secret = keys.wechatpay_api_v3_secret.encode()
        self._merchant_key = read_key(keys.wechatpay_private_key).public_key()
        self._platform: dict[str, tuple[RSAPrivateKey, bytes]] = {}
        self._serial = self._add_certificate(read_key(keys.wechatpay_gateway_key))
        self.fetched = 0  # How often the certificates were asked for.

    def rotate(self) -> None:
        """From now on signs with a new certificate; the old one is still told."""
        self._serial = self._add_certificate(new_key())

    def add_routes(self, router: web.UrlDispatcher) -> None:
        orders = "/v3/pay/transactions/out-trade-no/{number}"
        router.add_post("/v3/pay/transactions/{kind:native|h5}", self.order)
        router.add_get(orders, self.query)
        router.add_post(orders + "/close", self.close_order)
        router.add_post("/v3/refund/domestic/refunds", self.make_refund)
        router.add_get("/v3/refund/domestic/refunds/{number}", self.query_refund)
        router.add_get("/v3/certificates", self.certificates)
        router.add_get("/v3/bill/tradebill", self.bill_url)
        router.add_get("/v3/billdownload/file", self.download_bill)

    # The merchant's calls.

    async def order(self, request: web.Request) -> web.Response:
        wish = await self._verified(request)
        trade = self.open(
            Trade(
                wish["out_trade_no"],
                self.ids.new("42"),
                wish["amount"]["total"],
                wish["amount"]["currency"],
                self.clock.now_ms(),
                wish["notify_url"],
                wish["description"],
                _ms_of(wish.get("time_expire")),
            )
        )
        state = trade.state_at(self.clock.now_ms())
        if state is TradeState.PAID:
            return _refusal(400, "ORDERPAID")
        if state is not TradeState.OPEN:
            return _refusal(400, "ORDER_CLOSED")
        page = f"{self.root}/pay/{quote(trade.ref)}"
        if request.match_info["kind"] == "h5":
            return web.json_response({"h5_url": f"{page}?package=h5"})
        return web.json_response({"code_url": page})

    async def query(self, request: web.Request) -> web.Response:
        await self._verified(request)
        trade = self._find(request)
        return _refusal(404, "ORDER_NOT_EXIST") if trade is None else _json(self._told(trade))

    async def close_order(self, request: web.Request) -> web.Response:
        await self._verified(request)
        trade = self._find(request)
        if trade is None:
            return _refusal(404, "ORDER_NOT_EXIST")
        try:
            self.close(trade)
        except Gone:
            return _refusal(400, "ORDERPAID")
        return web.Response(status=204)

    async def make_refund(self, request: web.Request) -> web.Response:
        wish = await self._verified(request)
        trade = self.book.find(self.name, wish["out_trade_no"])
        if trade is None:
            return _refusal(404, "RESOURCE_NOT_EXISTS")
        if wish["amount"]["refund"] != trade.amount_minor:
            return _refusal(400, "INVALID_REQUEST")
        try:
            self.refund(trade)
        except Gone:
            return _refusal(400, "INVALID_REQUEST")
        return _json(self._refund_told(trade))

    async def query_refund(self, request: web.Request) -> web.Response:
        await self._verified(request)
        trade = self._find(request)
        if trade is None or trade.refunded_ms is None:
            return _refusal(404, "RESOURCE_NOT_EXISTS")
        return _json(self._refund_told(trade))

    async def certificates(self, request: web.Request) -> web.Response:
        await self._verified(request)
        self.fetched += 1
        told = [
            {"serial_no": serial, "encrypt_certificate": self._seal(pem, "certificate")}
            for serial, (_, pem) in self._platform.items()
        ]
        return _json({"data": told})

    async def bill_url(self, request: web.Request) -> web.Response:
        await self._verified(request)
        bill = self._bill(date.fromisoformat(request.query["bill_date"]))
        if bill is None:
            return _refusal(400, "NO_STATEMENT_EXIST")
        url = f"{self.root}/v3/billdownload/file?token={request.query['bill_date']}"
        digest = sha1(bill, usedforsecurity=False).hexdigest()
        return _json({"hash_type": "SHA1", "hash_value": digest, "download_url": url})

    async def download_bill(self, request: web.Request) -> web.Response:
        await self._verified(request)
        bill = self._bill(date.fromisoformat(request.query["token"])) or b""
        return web.Response(body=gzip.compress(bill, mtime=0), content_type="application/x-gzip")

    def _find(self, request: web.Request) -> Trade | None:
        return self.book.find(self.name, request.match_info["number"])

    async def _verified(self, request: web.Request) -> Any:
        """The body as JSON. Raises HTTPUnauthorized where the Authorization header is not good."""
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        parts = dict(part.partition("=")[::2] for part in rest.split(","))
        said = {name: value.strip('"') for name, value in parts.items()}
        body = await request.read()
        timestamp, nonce = said.get("timestamp", ""), said.get("nonce_str", "")
        text = request_text(request.method, request.raw_path, timestamp, nonce, body)
        known = (self._keys.wechatpay_mch_id, self._keys.wechatpay_serial)
        if (
            scheme != SCHEME
            or (said.get("mchid"), said.get("serial_no")) != known
            or not is_timely(timestamp, self.clock.now_ms())
            or not is_signed(self._merchant_key, said.get("signature", ""), text)
        ):
            raise web.HTTPUnauthorized(
                text='{"code":"SIGN_ERROR"}', content_type="application/json"
            )
        return json.loads(body) if body else None

    def sealed(self, response: web.Response, *, genuine: bool) -> web.Response:
        body = response.body if isinstance(response.body, bytes) else b""
        response.headers.extend(self._signature(body, self.clock.now_ms(), genuine=genuine))
        return response

    def _signature(self, body: bytes, at_ms: int, *, genuine: bool) -> dict[str, str]:
        timestamp, nonce = str(at_ms // 1000), self.ids.new("n")
        key = self._platform[self._serial][0] if genuine else forgers_key()
        return {
            TIMESTAMP: timestamp,
            NONCE: nonce,
            SERIAL: self._serial,
            SIGNATURE: sign_text(key, answer_text(timestamp, nonce, body)),
        }

    def _told(self, trade: Trade) -> dict[str, object]:
        told: dict[str, object] = {
            "appid": self._keys.wechatpay_app_id,
            "mchid": self._keys.wechatpay_mch_id,
            "out_trade_no": trade.number,
            "trade_type": "NATIVE",
            "trade_state": STATES[trade.state_at(self.clock.now_ms())],
            "amount": {"total": trade.amount_minor, "currency": trade.currency},
        }
        if trade.refunded_ms is not None:
            told["trade_state"] = "REFUND"  # From the moment it is asked for.
        if trade.paid_ms is not None:
            told |= {"transaction_id": trade.ref, "success_time": time_of(trade.paid_ms)}
        return told

    def _refund_told(self, trade: Trade) -> dict[str, object]:
        done = not trade.is_refund_under_way(self.clock.now_ms())
        told: dict[str, object] = {
            "out_trade_no": trade.number,
            "out_refund_no": trade.number,
            "transaction_id": trade.ref,
            "refund_id": f"r{trade.ref}",
            "status": "SUCCESS" if done else "PROCESSING",
            "amount": {"total": trade.amount_minor, "refund": trade.amount_minor},
        }
        if done:
            told["success_time"] = time_of(trade.refunded_ms or 0)
        return told

    # Notifications.

    def sign_notice(self, trade: Trade, event_id: str, at_ms: int, mischief: Mischief) -> Signed:
        if trade.refunded_ms is None:
            kind, resource = "TRANSACTION.SUCCESS", self._told(trade)
        else:
            kind, resource = "REFUND.SUCCESS", self._refund_told(trade)
            resource |= {"mchid": self._keys.wechatpay_mch_id}
            resource["refund_status"] = resource.pop("status")
        event = {
            "id": event_id,
            "event_type": kind,
            "resource_type": "encrypt-resource",
            "create_time": time_of(at_ms),
            "resource": self._seal(json.dumps(resource).encode(), "transaction"),
        }
        body = json.dumps(event).encode()
        headers = self._signature(body, at_ms, genuine=mischief is not Mischief.FORGE)
        if mischief is Mischief.TAMPER:
            body = body.replace(event_id.encode(), b"evt_tampered")
        return {**headers, "Content-Type": "application/json"}, body

    def _seal(self, data: bytes, about: str) -> dict[str, str]:
        nonce = self.ids.new("n")[:12]
        sealed = AESGCM(self._secret).encrypt(nonce.encode(), data, about.encode())
        return {
            "algorithm": ALGORITHM,
            "nonce": nonce,
            "associated_data": about,
            "ciphertext": b64encode(sealed).decode(),
        }

    def _add_certificate(self, key: RSAPrivateKey) -> str:
        now = datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)
        certificate = make_certificate(key, now)
        serial = f"{certificate.serial_number:040X}"
        self._platform[serial] = (key, certificate.public_bytes(Encoding.PEM))
        return serial

    # Bills.

    def _bill(self, day: date) -> bytes | None:
        """None for a day without any trade."""
        rows: list[str] = []
        for trade in self.book.of(self.name):
            if _is_on(trade.paid_ms, day):
                rows.append(self._row(trade, trade.paid_ms, "SUCCESS"))
            if _is_on(trade.refunded_ms, day):
                rows.append(self._row(trade, trade.refunded_ms, "REFUND"))
        if not rows:
            return None
        totals = [TOTALS, ",".join(f"`{n}" for n in (len(rows), 0, 0, 0, 0, 0, 0))]
        return ("\ufeff" + "\r\n".join([COLUMNS, *rows, *totals]) + "\r\n").encode()

    def _row(self, trade: Trade, at_ms: int | None, state: str) -> str:
        amount = yuan_text(trade.amount_minor)
        back = amount if state == "REFUND" else "0.00"
        at = datetime.fromtimestamp((at_ms or 0) / 1000, UTC).astimezone(BEIJING)
        cells = (
            f"{at:%Y-%m-%d %H:%M:%S}",
            self._keys.wechatpay_app_id,
            self._keys.wechatpay_mch_id,
            trade.ref,
            trade.number,
            state,
            trade.currency,
            amount,
            back,
        )
        return ",".join(f"`{cell}" for cell in cells)


def _is_on(ms: int | None, day: date) -> bool:
    return (
        ms is not None and datetime.fromtimestamp(ms / 1000, UTC).astimezone(BEIJING).date() == day
    )


def _ms_of(text: str | None) -> int | None:
    return None if text is None else int(datetime.fromisoformat(text).timestamp() * 1000)


def _json(value: object) -> web.Response:
    return web.json_response(value)


def _refusal(status: int, code: str) -> web.Response:
    return web.json_response({"code": code, "message": code.lower()}, status=status)
