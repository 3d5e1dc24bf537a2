"""Reads statements from files, by the provider whose they are. Asks no provider."""

from collections.abc import Callable, Mapping
from typing import Final

from engine.errors import Invalid
from engine.payment import alipay, alipay_bill, sandbox, stripe, wechatpay, wechatpay_bill
from engine.payment.provider import StatementLine

READERS: Final[Mapping[str, Callable[[bytes], list[StatementLine]]]] = {
    alipay.NAME: alipay_bill.read_bill,
    wechatpay.NAME: wechatpay_bill.read_bill,
    stripe.NAME: stripe.read_statement,
    sandbox.NAME: sandbox.read_statement,
}
OFFSET_HOURS: Final[Mapping[str, int]] = {
    alipay.NAME: alipay.Alipay.bill_offset_hours,
    wechatpay.NAME: wechatpay.WeChatPay.bill_offset_hours,
    stripe.NAME: stripe.Stripe.bill_offset_hours,
    sandbox.NAME: sandbox.SandboxProvider.bill_offset_hours,
}


def read_statement(provider: str, data: bytes) -> list[StatementLine]:
    """Raises Invalid for a provider that nobody knows, StatementUnreadable."""
    reader = READERS.get(provider)
    if reader is None:
        raise Invalid("provider", f"must be one of {', '.join(sorted(READERS))}")
    return reader(data)
