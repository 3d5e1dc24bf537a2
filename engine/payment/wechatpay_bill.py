"""Reads WeChat Pay's daily trade bill (`ALL`): CSV, alone or gzipped. Pure."""

import csv
import io
import zlib
from collections.abc import Iterable
from typing import Final

from engine.payment.amounts import fen_of_yuan
from engine.payment.http import STATEMENT_BYTES_MAX
from engine.payment.provider import LineKind, StatementLine, StatementUnreadable

GZIP_WINDOW: Final = 31  # 2^15 bytes, in gzip's own frame.
STATE, TRADE_NO, ORDER_NO = "交易状态", "微信订单号", "商户订单号"
CURRENCY, AMOUNT, REFUND_AMOUNT = "货币种类", "订单金额", "申请退款金额"
COLUMNS: Final = (STATE, TRADE_NO, ORDER_NO, CURRENCY, AMOUNT, REFUND_AMOUNT)
SUMMARY: Final = "总交易单数"  # Begins the two rows of totals at the end.
REFUNDS: Final = frozenset({"REFUND", "REVOKED"})


def read_bill(data: bytes) -> list[StatementLine]:
    """The lines, in their order. Raises StatementUnreadable."""
    try:
        text = unpacked(data).decode("utf-8-sig")
        return list(_lines(text))
    except (ValueError, csv.Error, zlib.error) as error:
        raise StatementUnreadable(f"It is no bill of WeChat Pay: {error}") from error


def unpacked(data: bytes) -> bytes:
    """Raises ValueError for what is larger than any bill, zlib.error for what is damaged."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    unpacker = zlib.decompressobj(GZIP_WINDOW)
    text = unpacker.decompress(data, STATEMENT_BYTES_MAX)
    if not unpacker.eof:
        raise ValueError("it is cut short or too large")
    return text


def _lines(text: str) -> Iterable[StatementLine]:
    """Every cell of a row begins with a backtick, so that spreadsheets keep its digits."""
    rows = csv.reader(io.StringIO(text))
    header = [cell.strip() for cell in next(rows, [])]
    if missing := set(COLUMNS) - set(header):
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    columns = [header.index(name) for name in COLUMNS]
    for row in rows:
        if not any(row):
            continue
        if row[0].strip() == SUMMARY:
            return
        if len(row) <= max(columns):
            raise ValueError("a row is too short")
        yield _line(*(row[column].strip().lstrip("`") for column in columns))


def _line(  # noqa: PLR0917
    state: str, trade_no: str, order_no: str, currency: str, amount: str, refund_amount: str
) -> StatementLine:
    if state == "SUCCESS":
        return StatementLine(LineKind.PAYMENT, order_no, trade_no, fen_of_yuan(amount), currency)
    if state not in REFUNDS:
        raise ValueError(f"a row is {state[:20]}")
    back = abs(fen_of_yuan(refund_amount))
    return StatementLine(LineKind.REFUND, order_no, trade_no, back, currency)
