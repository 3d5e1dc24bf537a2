"""Puts the practised gateways together: one HTTP server, one memory, one bell to ring."""

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from api.sandbox.alipay import AlipayGateway
from api.sandbox.gateway_keys import GatewayKeys
from api.sandbox.notices import Notices
from api.sandbox.simulator import Simulator
from api.sandbox.stripe import StripeGateway
from api.sandbox.trades import TradeBook
from api.sandbox.wechatpay import WeChatPayGateway
from engine.clock import Clock
from engine.ids import Ids
from engine.payment.provider import WEBHOOK_PATH

DATABASE_FILE: Final = "gateways.sqlite3"


class Gateways:
    """Alipay, WeChat Pay and Stripe, with the notices that they send."""

    def __init__(
        self, book: TradeBook, notices: Notices, clock: Clock, ids: Ids, keys: GatewayKeys
    ) -> None:
        self.book = book
        self.notices = notices
        self.alipay = AlipayGateway(book, notices, clock, ids, keys)
        self.wechatpay = WeChatPayGateway(book, notices, clock, ids, keys)
        self.stripe = StripeGateway(book, notices, clock, ids, keys)

    @property
    def all(self) -> Sequence[Simulator]:
        return (self.alipay, self.wechatpay, self.stripe)

    def mount(self, app: web.Application) -> None:
        """Each under its name."""
        for gateway in self.all:
            app.add_subapp(f"/{gateway.name}", gateway.make_app())

    def reached_at(self, root: str, shop: str) -> None:
        """Said before anybody asks: addresses that merchants are told begin with `root`."""
        self.alipay.root, self.wechatpay.root = f"{root}/alipay", f"{root}/wechatpay"
        self.stripe.notify_url = f"{shop}{WEBHOOK_PATH}{self.stripe.name}"
