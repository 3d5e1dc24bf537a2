"""Alipay's side of its protocol: page payments, queries, refunds, closing, notifications, bills.

Verifies every request with the application's key, signs every answer with its own.
"""

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from api.sandbox.gateway_keys import GatewayKeys, forgers_key, read_key
from api.sandbox.mischief import Mischief
from api.sandbox.notices import Notices, Signed
from api.sandbox.simulator import Gone, Simulator
from api.sandbox.trades import Trade, TradeBook, TradeState
from engine.clock import Clock
from engine.ids import Ids
from engine.payment.alipay import BEIJING, ms_of, time_of
from engine.payment.alipay_signing import UNSIGNED, read_form, text_of
from engine.payment.amounts import fen_of_yuan, yuan_text
from engine.payment.http import HttpReply
from engine.payment.keys import is_signed, sign_text

FORM: Final = "application/x-www-form-urlencoded; charset=utf-8"
PAGE_PAY: Final = "alipay.trade.page.pay"
STATES: Final = {
    TradeState.OPEN: "WAIT_BUYER_PAY",
    TradeState.PAID: "TRADE_SUCCESS",
    TradeState.CLOSED: "TRADE_CLOSED",
    TradeState.REFUNDED: "TRADE_CLOSED",
}
COLUMNS: Final = "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,订单金额（元）"

Content = dict[str, str]


class AlipayGateway(Simulator):
    """`/alipay/gateway.do`, as Alipay's `openapi.alipay.com/gateway.do`."""

    name = "alipay"
    title = "Alipay 支付宝 (sandbox)"
    root = ""  # Where this gateway is reached: set by whoever serves it.

    def __init__(
        self, book: TradeBook, notices: Notices, clock: Clock, ids: Ids, keys: GatewayKeys
    ) -> None:
        super().__init__(book, notices, clock, ids)
        self._keys = keys
        self._key = read_key(keys.alipay_gateway_key)
        self._app_key = read_key(keys.alipay_private_key).public_key()
        self._methods: dict[str, Callable[[Content], dict[str, object]]] = {
            "alipay.trade.query": self._query,
            "alipay.trade.close": self._close,
            "alipay.trade.refund": self._refund,
            "alipay.data.dataservice.bill.downloadurl.query": self._bill_url,
        }

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/gateway.do", self.pay_page)
        router.add_post("/gateway.do", self.call)
        router.add_get("/bills/{day}.zip", self.download_bill)

    def is_buyers(self, request: web.Request) -> bool:
        return request.query.get("method") == PAGE_PAY or super().is_buyers(request)

    def is_taken(self, reply: HttpReply) -> bool:
        return reply.body.strip() == b"success"

    # The buyer's browser.

    async def pay_page(self, request: web.Request) -> web.StreamResponse:
        return self.page_of(self._trade_of(request))

    async def call(self, request: web.Request) -> web.StreamResponse:
        """A buyer's decision where the query holds the wish, else a call of the merchant."""
        if request.query.get("method") == PAGE_PAY:
            return await self.decided(self._trade_of(request), request)
        try:
            params = read_form(await request.read())
        except ValueError:
            params = {}
        return self._answer(params)

    def _trade_of(self, request: web.Request) -> Trade:
        """The trade that the signed address wants, begun by this visit."""
        params = dict(request.query)
        if not self._is_merchants(params):
            raise web.HTTPForbidden(text="The signature does not fit. 验签出错")
        content = json.loads(params["biz_content"])
        return self.open(
            Trade(
                content["out_trade_no"],
                self.ids.new("2026"),
                fen_of_yuan(content["total_amount"]),
                "CNY",
                self.clock.now_ms(),
                params["notify_url"],
                content["subject"],
                ms_of(content.get("time_expire")),
                params.get("return_url"),
            )
        )

    # The merchant's calls.

    def _answer(self, params: dict[str, str]) -> web.Response:
        method = params.get("method", "")
        call = self._methods.get(method)
        if not self._is_merchants(params) or call is None:
            return _answered("error_response", _refusal("40002", "isv.invalid-signature"))
        node = method.replace(".", "_") + "_response"
        try:
            content = json.loads(params["biz_content"])
            return _answered(node, {"code": "10000", "msg": "Success", **call(content)})
        except Gone as refusal:
            return _answered(node, _refusal("40004", str(refusal)))

    def sealed(self, response: web.Response, *, genuine: bool) -> web.Response:
        """The node's raw text is signed, and the signature put beside it."""
        if response.content_type != "application/json" or not isinstance(response.body, bytes):
            return response
        node, text = response.headers["X-Node"], response.body.decode()
        signature = sign_text(self._key if genuine else forgers_key(), text.encode())
        body = f'{{"{node}":{text},"sign":"{signature}"}}'
        return web.Response(text=body, content_type="application/json")

    def _is_merchants(self, params: dict[str, str]) -> bool:
        return (
            params.get("app_id") == self._keys.alipay_app_id
            and params.get("sign_type") == "RSA2"
            and is_signed(self._app_key, params.get("sign", ""), text_of(params, "sign"))
        )

    def _query(self, content: Content) -> dict[str, object]:
        return self._told(self._find(content))

    def _close(self, content: Content) -> dict[str, object]:
        trade = self._find(content)
        try:
            self.close(trade)
        except Gone:
            raise Gone("ACQ.TRADE_STATUS_ERROR") from None
        return {"out_trade_no": trade.number, "trade_no": trade.ref}

    def _refund(self, content: Content) -> dict[str, object]:
        trade = self._find(content)
        if fen_of_yuan(content["refund_amount"]) != trade.amount_minor:
            raise Gone("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
        new = trade.refunded_ms is None
        try:
            self.refund(trade)
        except Gone:
            raise Gone("ACQ.TRADE_STATUS_ERROR") from None
        return {
            "out_trade_no": trade.number,
            "trade_no": trade.ref,
            "fund_change": "Y" if new else "N",
            "refund_fee": content["refund_amount"],
        }

    def _bill_url(self, content: Content) -> dict[str, object]:
        return {"bill_download_url": f"{self.root}/bills/{content['bill_date']}.zip"}

    def _find(self, content: Content) -> Trade:
        trade = self.book.find(self.name, content["out_trade_no"])
        if trade is None:
            raise Gone("ACQ.TRADE_NOT_EXIST")
        return trade

    def _told(self, trade: Trade) -> dict[str, object]:
        told: dict[str, object] = {
            "out_trade_no": trade.number,
            "trade_no": trade.ref,
            "trade_status": STATES[trade.state_at(self.clock.now_ms())],
            "total_amount": yuan_text(trade.amount_minor),
        }
        if trade.paid_ms is not None:
            told["send_pay_date"] = time_of(trade.paid_ms)
        if trade.currency != "CNY":
            told["trans_currency"] = trade.currency
        return told

    # Notifications.

    def sign_notice(self, trade: Trade, event_id: str, at_ms: int, mischief: Mischief) -> Signed:
        params = {
            "notify_id": event_id,
            "notify_type": "trade_status_sync",
            "notify_time": time_of(at_ms),
            "app_id": self._keys.alipay_app_id,
            "seller_id": self._keys.alipay_seller_id,
            "charset": "utf-8",
            "version": "1.0",
            "subject": trade.description,
            "out_trade_no": trade.number,
            "trade_no": trade.ref,
            "trade_status": STATES[trade.state],
            "total_amount": yuan_text(trade.amount_minor),
        }
        if trade.paid_ms is not None:
            params["gmt_payment"] = time_of(trade.paid_ms)
        if trade.refunded_ms is not None:
            params |= {
                "gmt_refund": time_of(trade.refunded_ms),
                "refund_fee": params["total_amount"],
            }
        if trade.currency != "CNY":
            params["trans_currency"] = trade.currency
        key = forgers_key() if mischief is Mischief.FORGE else self._key
        params |= {"sign": sign_text(key, text_of(params, *UNSIGNED)), "sign_type": "RSA2"}
        if mischief is Mischief.TAMPER:
            params["total_amount"] = "0.01"
        return {"Content-Type": FORM}, urlencode(params).encode()

    # Bills.

    async def download_bill(self, request: web.Request) -> web.Response:
        day = date.fromisoformat(request.match_info["day"])
        rows = [f"#支付宝业务明细查询 {day}", COLUMNS]
        for trade in self.book.of(self.name):
            rows += [_row(trade, "交易", ms) for ms in [trade.paid_ms] if _is_on(ms, day)]
            rows += [_row(trade, "退款", ms) for ms in [trade.refunded_ms] if _is_on(ms, day)]
        rows.append("#业务明细列表结束")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bill.csv", "\r\n".join(rows).encode("gb18030"))
        return web.Response(body=packed.getvalue(), content_type="application/zip")


def _row(trade: Trade, kind: str, at_ms: int | None) -> str:
    sign = "-" if kind == "退款" else ""
    at = time_of(at_ms or 0)
    amount = sign + yuan_text(trade.amount_minor)
    return f"{trade.ref}\t,{trade.number}\t,{kind},{trade.description},{at},{at},{amount}"


def _is_on(ms: int | None, day: date) -> bool:
    return (
        ms is not None and datetime.fromtimestamp(ms / 1000, UTC).astimezone(BEIJING).date() == day
    )


def _answered(node: str, content: dict[str, object]) -> web.Response:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return web.Response(
        body=text.encode(), content_type="application/json", headers={"X-Node": node}
    )


def _refusal(code: str, sub_code: str) -> dict[str, object]:
    return {"code": code, "msg": "Business Failed", "sub_code": sub_code, "sub_msg": sub_code}
