"""Reads Alipay's daily bill: CSV in GB18030, alone or in the zip in which it is downloaded. Pure."""

import csv
import io
import zipfile
import zlib
from collections.abc import Iterable
from typing import Final

from engine.payment.amounts import fen_of_yuan
from engine.payment.http import STATEMENT_BYTES_MAX
from engine.payment.provider import LineKind, StatementLine, StatementUnreadable

ENCODING: Final = "gb18030"  # A superset of the GBK that Alipay names: no character is lost.
SUMMARY: Final = "汇总"  # In the name of the other file of the zip.
TRADE_NO, ORDER_NO, KIND, AMOUNT = "支付宝交易号", "商户订单号", "业务类型", "订单金额（元）"
KINDS: Final = {"交易": LineKind.PAYMENT, "退款": LineKind.REFUND}
CURRENCY: Final = "CNY"
# What the standard library raises for bytes that are none of it: cut short, changed or locked.
DAMAGED: Final = (
    ValueError,
    KeyError,
    EOFError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)


def read_bill(data: bytes) -> list[StatementLine]:
    """The lines, in their order. Raises StatementUnreadable."""
    try:
        text = _unpacked(data).decode(ENCODING)
        return list(_lines(text))
    except DAMAGED as error:
        raise StatementUnreadable(f"It is no bill of Alipay: {error}") from error


def _unpacked(data: bytes) -> bytes:
    if not data.startswith(b"PK"):
        return data
    with zipfile.ZipFile(io.BytesIO(data), metadata_encoding=ENCODING) as archive:
        files = [entry for entry in archive.infolist() if SUMMARY not in entry.filename]
        if len(files) != 1 or files[0].file_size > STATEMENT_BYTES_MAX:
            raise ValueError("the archive does not hold one bill")
        return archive.read(files[0])


def _lines(text: str) -> Iterable[StatementLine]:
    """`#` begins remarks; the first other row names the columns; cells are padded with tabs."""
    rows = csv.reader(
        line for line in io.StringIO(text.removeprefix("\ufeff")) if not line.startswith("#")
    )
    columns: dict[str, int] | None = None
    for row in rows:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if columns is None:
            columns = {
                name.replace("(", "（").replace(")", "）"): n for n, name in enumerate(cells)
            }
            missing = {TRADE_NO, ORDER_NO, KIND, AMOUNT} - columns.keys()
            if missing:
                raise ValueError(f"no column {', '.join(sorted(missing))}")
        else:
            yield _line(cells, columns)
    if columns is None:
        raise ValueError("it is empty")


def _line(cells: list[str], columns: dict[str, int]) -> StatementLine:
    try:
        trade_no, order_no, kind, amount = (
            cells[columns[name]] for name in (TRADE_NO, ORDER_NO, KIND, AMOUNT)
        )
    except IndexError:
        raise ValueError("a row is too short") from None
    return StatementLine(KINDS[kind], order_no, trade_no, abs(fen_of_yuan(amount)), CURRENCY)
