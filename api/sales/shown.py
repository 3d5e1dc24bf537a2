"""Shows sales with their live stock, from memory where a copy of at most 100 ms is at hand.

Knows no HTTP server: gives Answers, so that any front can share it.
"""

import asyncio
import math
from typing import Final

from api.answers import Answer, Headers, public, time_text
from api.problems import Code, problem
from api.sales.bodies import SaleBody, is_live, sale_body
from engine.clock import Clock
from engine.errors import Unavailable
from engine.inventory import StockSnapshot
from engine.sales import LiveStock, Sale, SaleDirectory
from engine.sales.directory import STOCK_FRESH_SECONDS

PAGES_MAX: Final = 128  # Sales shown from memory at the same time; others are put together anew.
RENEW_SECONDS: Final = STOCK_FRESH_SECONDS / 2  # Old enough to look again behind the answer.

_TIME: Final = b'"server_time":"'  # Unescaped quotes: no name in the JSON can look like it.


class ShownSales:
    """The answers to `GET /v1/sales/{sale}`."""

    def __init__(self, directory: SaleDirectory, live_stock: LiveStock, clock: Clock) -> None:
        self._directory = directory
        self._live_stock = live_stock
        self._clock = clock
        self._now_ms = clock.now_ms
        self._monotonic = clock.monotonic
        self._pages: dict[str, Page] = {}
        self._renewing: set[asyncio.Task[None]] = set()

    def peek(self, sale_id: str) -> Answer | None:
        """The answer if a copy at most 100 ms old is at hand. Does no I/O.

        A copy that is half as old is renewed in the background.
        """
        page = self._pages.get(sale_id)
        if page is None:
            return None
        now = self._monotonic()
        if now >= page.fresh_until or page.changes != self._directory.changes:
            del self._pages[sale_id]
            return None
        if now >= page.renew_at:
            page.renew_at = math.inf  # One at a time.
            self._begin_renewal(sale_id)
        return page.answer(self._now_ms())

    async def show(self, sale_id: str) -> Answer:
        """The sale as it is now, or the problem that there is none. Raises StoreUnavailable."""
        changes = self._directory.changes
        sale = await self._directory.get(sale_id)
        if sale is None:
            return problem(Code.UNKNOWN_SALE)
        sale, stock = await self._with_stock(sale)
        now_ms = self._now_ms()
        self._keep(sale, stock, now_ms, changes)
        return public(sale_body(sale, stock, now_ms))

    async def body(self, sale: Sale) -> SaleBody:
        """The sale as one of a list."""
        sale, stock = await self._with_stock(sale)
        return sale_body(sale, stock, self._now_ms())

    async def _with_stock(self, sale: Sale) -> tuple[Sale, StockSnapshot | None]:
        """The sale and its stock at most 100 ms ago; None while Redis does not answer."""
        try:
            stock = await self._live_stock.get(sale.sale_id)
        except Unavailable:
            return sale, None
        if int(stock.config.get("revision", 0)) > sale.revision:
            # Another process changed the sale; our copy would show it for up to a second.
            self._directory.forget(sale.sale_id)
            sale = await self._directory.get(sale.sale_id) or sale
        return sale, stock

    def _keep(self, sale: Sale, stock: StockSnapshot | None, now_ms: int, changes: int) -> None:
        """Remembers the page, unless it says that Redis is away or the sale is being rebuilt."""
        known = self._live_stock.peek(sale.sale_id)
        if stock is None or known is None or known.value is not stock or not is_live(sale, stock):
            return
        self._pages.pop(sale.sale_id, None)
        while len(self._pages) >= PAGES_MAX:
            del self._pages[next(iter(self._pages))]
        self._pages[sale.sale_id] = Page(sale, stock, now_ms, known.at, changes)

    def _begin_renewal(self, sale_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._renew(sale_id), name=f"show {sale_id}")
        self._renewing.add(task)
        task.add_done_callback(self._renewing.discard)

    async def _renew(self, sale_id: str) -> None:
        try:
            await self._live_stock.renew(sale_id)
            await self.show(sale_id)
        except Unavailable:
            # The page grows too old by itself, and whoever asks then is told.
            return


class Page:
    """One sale's answer, put together but for the time. Good for the phase it was made in."""

    __slots__ = (
        "_answer",
        "_answer_ms",
        "_body",
        "_ends_ms",
        "_headers",
        "_sale",
        "_starts_ms",
        "_stock",
        "changes",
        "fresh_until",
        "renew_at",
    )

    def __init__(
        self, sale: Sale, stock: StockSnapshot, now_ms: int, at: float, changes: int
    ) -> None:
        self._sale = sale
        self._stock = stock
        self.changes = changes  # of the directory, before the sale was read
        self.fresh_until = at + STOCK_FRESH_SECONDS
        self.renew_at = at + RENEW_SECONDS
        self._answer_ms = now_ms
        self._answer = self._write(now_ms)

    def answer(self, now_ms: int) -> Answer:
        """The page at this moment."""
        if now_ms != self._answer_ms:
            self._answer_ms = now_ms
            if self._starts_ms <= now_ms < self._ends_ms:
                head, tail = self._body
                body = b"".join((head, time_text(now_ms).encode(), tail))
                self._answer = Answer(200, body, self._headers)
            else:
                self._answer = self._write(now_ms)
        return self._answer

    def _write(self, now_ms: int) -> Answer:
        sale = self._sale
        whole = public(sale_body(sale, self._stock, now_ms))
        at = whole.body.index(_TIME) + len(_TIME)
        self._body = (whole.body[:at], whole.body[whole.body.index(b'"', at) :])
        self._headers: Headers = whole.headers
        if now_ms < sale.opens_at_ms:
            self._starts_ms, self._ends_ms = -math.inf, float(sale.opens_at_ms)
        elif now_ms < sale.closes_at_ms:
            self._starts_ms, self._ends_ms = float(sale.opens_at_ms), float(sale.closes_at_ms)
        else:
            self._starts_ms, self._ends_ms = float(sale.closes_at_ms), math.inf
        return whole
