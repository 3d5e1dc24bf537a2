"""The invoice as a page that prints well: escaped, without a script, with a policy that says so."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from typing import Final

from babel.dates import format_date
from jinja2 import Environment, PackageLoader, StrictUndefined
from multidict import istr

from api.answers import CONTENT_TYPE, NO_STORE, SECURITY_HEADERS, Answer, Headers
from api.invoices.store import Invoice
from api.language import locale_of, pick
from api.pricing.money import format_money, is_currency
from engine.model import Money

_STYLE: Final = (files("api.invoices") / "templates" / "invoice.css").read_text("utf-8")
_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode()
# The one style on the page is let through by its hash; nothing else is fetched, run or framed.
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_POLICY_HEADER: Final = istr("Content-Security-Policy")
_HEADERS: Final[Headers] = (
    *((name, value) for name, value in SECURITY_HEADERS if name != _POLICY_HEADER),
    (_POLICY_HEADER, POLICY),
    (CONTENT_TYPE, "text/html; charset=utf-8"),
    NO_STORE,
    (istr("Vary"), "Accept-Language"),
)
_environment: Final = Environment(
    loader=PackageLoader("api.invoices"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "title": "Invoice",
        "issued": "Issued",
        "ordered": "Ordered",
        "paid": "Paid",
        "order": "Order",
        "seller": "Seller",
        "tax_id": "Tax number",
        "buyer": "Buyer",
        "item": "Item",
        "quantity": "Quantity",
        "unit_price": "Unit price",
        "amount": "Amount",
        "subtotal": "Subtotal",
        "total": "Total",
        "payment": "Payment",
        "refunded": "Refunded",
        "taxes": "Prices include taxes. Dates are in UTC.",
    },
    "zh-CN": {
        "title": "发票",
        "issued": "开具日期",
        "ordered": "下单日期",
        "paid": "付款日期",
        "order": "订单号",
        "seller": "销售方",
        "tax_id": "纳税人识别号",
        "buyer": "购买方",
        "item": "商品",
        "quantity": "数量",
        "unit_price": "单价",
        "amount": "金额",
        "subtotal": "商品小计",
        "total": "合计",
        "payment": "支付",
        "refunded": "已退款",
        "taxes": "价格含税。日期为世界协调时（UTC）。",
    },
}


def invoice_answer(invoice: Invoice, language: str) -> Answer:
    """The page, for its owner's eyes only."""
    file_name = f'inline; filename="invoice-{invoice.name}.html"'
    headers = (*_HEADERS, ("Content-Language", language), ("Content-Disposition", file_name))
    return Answer(200, render(invoice, language).encode(), headers)


def render(invoice: Invoice, language: str) -> str:
    document = invoice.document

    def money(amount_minor: int) -> str:
        if not is_currency(document.currency):  # A sale of long ago may have had its own.
            return f"{amount_minor} {document.currency}"
        return format_money(Money(amount_minor, document.currency), language)

    def date(moment: datetime) -> str:
        text: str = format_date(moment.astimezone(UTC), "long", locale=locale_of(language))
        return text

    return _environment.get_template("invoice.html").render(
        language=language,
        style=_STYLE,
        words=WORDS[language],
        invoice=invoice,
        document=document,
        subtotal_minor=sum(line.total_minor for line in document.lines),
        money=money,
        date=date,
        named=lambda names: pick(names, language),
    )
