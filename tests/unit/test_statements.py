"""Statements as providers write them, and what differs from the payments here."""

import gzip
import io
import json
import zipfile

import pytest

from api.reconciliation.compare import Difference, DifferenceKind, Kept, compare
from api.reconciliation.statements import OFFSET_HOURS, READERS, read_statement
from engine.errors import Invalid
from engine.model import PaymentStatus
from engine.payment.provider import LineKind, StatementLine, StatementUnreadable

ALIPAY = """\
#支付宝业务明细查询
#账号：[20880001000000010156]
#起始日期：[2026年11月11日 00:00:00]   终止日期：[2026年11月12日 00:00:00]
#-----------------------------------------业务明细列表----------------------------------------
支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,商家实收（元）,备注
2026111122001\t,pay_1\t,交易,"手机, 黑色",2026-11-11 00:00:01,2026-11-11 00:00:09,,,,,*张三,1299.00,1299.00,
2026111122002\t,pay_2\t,退款,手机,2026-11-11 00:00:01,2026-11-11 09:00:00,,,,,*李四,-9.90,-9.90,
#-----------------------------------------业务明细列表结束------------------------------------
"""
WECHATPAY = """\
\ufeff交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注
`2026-11-11 00:00:09,`wx1,`19,`0,`,`42001,`pay_1,`o1,`NATIVE,`SUCCESS,`CMB,`CNY,`1299.00,`0.00,`0,`0,`0.00,`0.00,`,`,`手机,`,`7.79400,`0.60%,`1299.00,`0.00,`
`2026-11-11 09:00:00,`wx1,`19,`0,`,`42002,`pay_2,`o2,`NATIVE,`REFUND,`CMB,`CNY,`0.00,`0.00,`503,`pay_2,`9.90,`0.00,`ORIGINAL,`SUCCESS,`手机,`,`-0.06,`0.60%,`0.00,`9.90,`
总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额
`2,`1299.00,`9.90,`0.00,`7.73000,`1299.00,`9.90
"""
METADATA = {"payment_id": "pay_1"}
STRIPE = {
    "object": "list",
    "data": [
        {
            "id": "txn_1",
            "type": "charge",
            "amount": 118_000,  # In the currency of the account.
            "currency": "eur",
            "source": {
                "id": "ch_1",
                "object": "charge",
                "amount": 129_900,
                "currency": "usd",
                "payment_intent": "pi_1",
                "metadata": METADATA,
            },
        },
        {
            "id": "txn_2",
            "type": "refund",
            "amount": -990,
            "currency": "usd",
            "source": {"id": "re_1", "amount": 990, "currency": "usd", "payment_intent": "pi_2"},
        },
        {"id": "txn_3", "type": "payout", "amount": -1, "currency": "usd", "source": "po_1"},
    ],
}
PAYMENT, REFUND = LineKind.PAYMENT, LineKind.REFUND


def zipped(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, ALIPAY.encode("gbk"))
    return packed.getvalue()


def spoiled(at: int, byte: int) -> bytes:
    """A zip of one bill with a byte that is another."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", ALIPAY.encode("gbk"))
    data = bytearray(packed.getvalue())
    directory = data.index(b"PK\x01\x02")
    data[directory + at] = byte
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [ALIPAY.encode("gbk"), zipped("明细.csv"), zipped("明细(汇总).csv", "明细.csv")],
)
def test_bill_of_alipay_is_read_packed_or_not(data: bytes) -> None:
    assert read_statement("alipay", data) == [
        StatementLine(PAYMENT, "pay_1", "2026111122001", 129_900, "CNY"),
        StatementLine(REFUND, "pay_2", "2026111122002", 990, "CNY"),
    ]


@pytest.mark.parametrize("data", [WECHATPAY.encode(), gzip.compress(WECHATPAY.encode())])
def test_bill_of_wechat_pay_is_read_packed_or_not(data: bytes) -> None:
    assert read_statement("wechatpay", data) == [
        StatementLine(PAYMENT, "pay_1", "42001", 129_900, "CNY"),
        StatementLine(REFUND, "pay_2", "42002", 990, "CNY"),
    ]


@pytest.mark.parametrize("pages", [STRIPE, [STRIPE]])
def test_balance_transactions_of_stripe_tell_what_the_buyer_paid(pages: object) -> None:
    assert read_statement("stripe", json.dumps(pages).encode()) == [
        StatementLine(PAYMENT, "pay_1", "pi_1", 129_900, "USD"),
        StatementLine(REFUND, "", "pi_2", 990, "USD"),
    ]


@pytest.mark.parametrize("provider", sorted(READERS))
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"<html>",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"a,b\n1,2",
        gzip.compress(WECHATPAY.encode())[:-9],
        zipped("a.csv", "b.csv"),
        spoiled(-40, 0xFF),  # what is packed
        spoiled(10, 99),  # by a method that nobody knows
        spoiled(8, 1),  # and locked
        ALIPAY.replace("1299.00", "12x99").encode("gbk"),
        WECHATPAY.replace("`SUCCESS", "`LOST").encode(),
        b'{"data":[{"type":"charge","source":{}}]}',
        b'[{"data":1}]',
        b"[1]",
    ],
)
def test_what_is_no_statement_is_said_and_never_half_read(provider: str, data: bytes) -> None:
    with pytest.raises(StatementUnreadable):
        read_statement(provider, data)


def test_unknown_provider_has_no_statement() -> None:
    assert READERS.keys() == OFFSET_HOURS.keys()
    with pytest.raises(Invalid):
        read_statement("paypal", b"")


def kept(name: str = "pay_1", **changes: object) -> Kept:
    values = {
        "payment_id": name,
        "provider_ref": f"ref_{name}",
        "status": PaymentStatus.CAPTURED,
        "amount_minor": 100,
        "currency": "CNY",
        "captured_here": True,
        "refunded_here": False,
    }
    return Kept(**values | changes)  # type: ignore[arg-type]


def line(kind: LineKind = PAYMENT, name: str = "pay_1", **changes: object) -> StatementLine:
    values = {"payment_id": name, "provider_ref": f"ref_{name}", "amount_minor": 100}
    return StatementLine(**{"kind": kind, **values, "currency": "CNY"} | changes)  # type: ignore[arg-type]


def kinds(found: list[Difference]) -> list[str]:
    return [one.kind.value for one in found]


GIVEN_BACK = kept(status=PaymentStatus.REFUNDED, refunded_here=True)


@pytest.mark.parametrize(
    ("lines", "payments", "wanted"),
    [
        ([line()], [kept()], []),
        ([], [], []),
        ([line(), line(REFUND)], [GIVEN_BACK], []),
        ([line(payment_id="")], [kept()], []),  # Known by the provider's name.
        ([line()], [], [DifferenceKind.MISSING_HERE]),
        ([], [kept()], [DifferenceKind.MISSING_THERE]),
        ([], [kept(captured_here=False)], []),  # Another day's.
        ([line(amount_minor=99)], [kept()], [DifferenceKind.AMOUNT]),
        ([line(currency="USD")], [kept()], [DifferenceKind.CURRENCY]),
        ([line(), line()], [kept()], [DifferenceKind.AMOUNT]),  # Charged twice.
        (
            [line()],
            [kept(status=PaymentStatus.FAILED, captured_here=False)],
            [DifferenceKind.STATUS],
        ),
        ([line(REFUND)], [kept(captured_here=False)], [DifferenceKind.REFUND]),
        ([line(), line(REFUND, amount_minor=50)], [GIVEN_BACK], [DifferenceKind.REFUND]),
        ([line(), line(REFUND), line(REFUND)], [GIVEN_BACK], [DifferenceKind.REFUND]),
        ([line()], [GIVEN_BACK], [DifferenceKind.REFUND]),
        ([line(REFUND, "x")], [], [DifferenceKind.MISSING_HERE]),
    ],
)
def test_each_difference_is_called_by_its_name(
    lines: list[StatementLine], payments: list[Kept], wanted: list[DifferenceKind]
) -> None:
    assert kinds(compare(lines, payments)) == wanted


def test_difference_shows_both_sides() -> None:
    (found,) = compare([line(amount_minor=99)], [kept()])
    assert found.ours == {"status": "captured", "amount_minor": 100, "currency": "CNY"}
    assert found.theirs == {"kind": "payment", "amount_minor": 99, "currency": "CNY"}
