"""Products as CSV: a row per SKU, a product's own columns on the first of its rows. Does no I/O."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from api.catalogue.document import CURRENCIES_MAX, SKUS_MAX, Product
from api.catalogue.lines import Record
from api.catalogue.staging import Fault, StagedProduct
from engine.errors import Invalid

LANGUAGES: Final = ("en", "zh-CN")
PRODUCT_COLUMNS: Final = (
    "product_id",
    "category_id",
    "status",
    "brand",
    *(f"name.{language}" for language in LANGUAGES),
    *(f"description.{language}" for language in LANGUAGES),
    "images",  # URLs, a blank between them
    "attributes",  # JSON
)
SKU_COLUMNS: Final = ("sku", "options", "weight_grams", "active")  # options: JSON
PRICE_PREFIX: Final = "price."  # price.CNY, in the smallest unit: 129900
NEEDED: Final = ("product_id", "category_id", "brand", "sku")
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False, "": True}

Row = dict[str, str]


class CsvReader:
    """Products from the rows of a file, the heading first. A product is whole when the next begins."""

    def __init__(self) -> None:
        self._columns: list[str] | None = None
        self._begun: _Begun | None = None

    def read(self, record: Record) -> StagedProduct | list[Fault] | None:
        """The product that this row shows to be whole, or its faults, if any. Raises Invalid."""
        if self._columns is None:
            self._columns = _heading(record)
            return None
        try:
            row = _row(self._columns, record)
        except ValueError as error:
            return self._unread(Fault(record.line, "", str(error)))
        if self._begun is not None and self._begun.takes(row, record.line):
            return None
        whole, self._begun = self.rest(), _Begun(row, record.line)
        return whole

    def rest(self) -> StagedProduct | list[Fault] | None:
        """The last product."""
        return None if self._begun is None else self._begun.end()

    def _unread(self, fault: Fault) -> list[Fault] | None:
        """A row that says nothing belongs to the product it stands in."""
        if self._begun is None:
            return [fault]
        self._begun.faults.append(fault)
        return None


class _Begun:
    """A product whose rows are being read."""

    def __init__(self, row: Row, line: int) -> None:
        self._line = line
        self._id = row["product_id"]
        self.faults: list[Fault] = []
        self._skus: list[dict[str, Any]] = []
        self._sku_lines: list[int] = []
        self._product = self._convert(_product_fields, row, line)
        self._add_sku(row, line)

    def takes(self, row: Row, line: int) -> bool:
        """Whether the row is one more SKU of it."""
        if row["product_id"] != self._id:
            return False
        for column in PRODUCT_COLUMNS[1:]:
            if row.get(column):
                self.faults.append(Fault(line, column, "stands on the product's first row only"))
        self._add_sku(row, line)
        return True

    def end(self) -> StagedProduct | list[Fault]:
        """The product, or everything that is wrong with it."""
        if not self.faults:
            try:
                document = self._product | {"skus": self._skus}
                product = msgspec.convert(document, Product)
                return StagedProduct(product, self._line, tuple(self._sku_lines))
            except msgspec.ValidationError as error:
                self.faults.append(self._fault(str(error)))
        return self.faults

    def _add_sku(self, row: Row, line: int) -> None:
        if not row["sku"]:
            return
        if len(self._skus) >= SKUS_MAX:
            self.faults.append(Fault(line, "sku", f"is more than the {SKUS_MAX} of one product"))
            return
        self._skus.append(self._convert(_sku_fields, row, line))
        self._sku_lines.append(line)

    def _convert(self, read: Any, row: Row, line: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for column, field in read(row):
            try:
                field(fields)
            except ValueError as error:
                self.faults.append(Fault(line, column, str(error)))
        return fields

    def _fault(self, message: str) -> Fault:
        """msgspec's complaint, at the row and the column that it is about."""
        text, _, place = message.partition(" - at `")
        path = place.rstrip("`").removeprefix("$").removeprefix(".")
        line = self._line
        if path.startswith("skus["):
            number, _, path = path.removeprefix("skus[").partition("]")
            line, path = self._sku_lines[int(number)], path.lstrip(".")
        return Fault(line, path, text)


def _product_fields(row: Row) -> Iterator[tuple[str, Any]]:
    for name in ("product_id", "category_id", "brand"):
        yield name, _setter(name, row[name])
    if status := row.get("status"):
        yield "status", _setter("status", status)
    for name in ("name", "description"):
        # Spreadsheets end lines within a cell as Windows does.
        found = ((each, row.get(f"{name}.{each}", "")) for each in LANGUAGES)
        texts = {each: text.replace("\r\n", "\n") for each, text in found if text}
        yield name, _setter(name, texts)
    yield "images", _setter("images", row.get("images", "").split())
    yield "attributes", _json_setter("attributes", row.get("attributes", ""))


def _sku_fields(row: Row) -> Iterator[tuple[str, Any]]:
    yield "sku", _setter("sku", row["sku"])
    yield "options", _json_setter("options", row.get("options", ""))
    yield "weight_grams", _integer_setter("weight_grams", row.get("weight_grams", "") or "0")
    yield "active", _boolean_setter(row.get("active", ""))
    for column, text in row.items():
        if column.startswith(PRICE_PREFIX) and text:
            yield column, _price_setter(column.removeprefix(PRICE_PREFIX), text)


def _setter(name: str, value: object) -> Any:
    return lambda fields: fields.update({name: value})


def _json_setter(name: str, text: str) -> Any:
    def put(fields: dict[str, Any]) -> None:
        try:
            fields[name] = msgspec.json.decode(text or "{}")
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"is no JSON: {error}") from None

    return put


def _integer_setter(name: str, text: str) -> Any:
    return lambda fields: fields.update({name: _integer(text)})


def _boolean_setter(text: str) -> Any:
    def put(fields: dict[str, Any]) -> None:
        if text.lower() not in _BOOLEANS:
            raise ValueError("must be true or false")
        fields["active"] = _BOOLEANS[text.lower()]

    return put


def _price_setter(currency: str, text: str) -> Any:
    def put(fields: dict[str, Any]) -> None:
        price = {"amount_minor": _integer(text), "currency": currency}
        fields.setdefault("prices", []).append(price)

    return put


def _integer(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError("must be a whole number")
    return int(text)


def _row(columns: list[str], record: Record) -> Row:
    """The cells by column. Raises ValueError."""
    cells = _cells(record)
    if len(cells) != len(columns):
        raise ValueError(f"has {len(cells)} cells; the heading has {len(columns)}")
    return dict(zip(columns, cells, strict=True))


def _cells(record: Record) -> list[str]:
    try:
        text = record.text.decode()
        return next(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except (csv.Error, StopIteration) as error:
        raise ValueError(f"is no CSV: {error}") from None


def _heading(record: Record) -> list[str]:
    """The columns. Raises Invalid."""
    try:
        cells = _cells(record)
    except ValueError as error:
        raise Invalid(f"line {record.line}", str(error)) from None
    known = {*PRODUCT_COLUMNS, *SKU_COLUMNS}
    for cell in cells:
        if cell not in known and not cell.startswith(PRICE_PREFIX):
            raise Invalid("line 1", f"there is no column {cell[:40]!r}")
    if len(set(cells)) != len(cells):
        raise Invalid("line 1", "a column is there twice")
    if missing := [name for name in NEEDED if name not in cells]:
        raise Invalid("line 1", f"lacks the column {missing[0]}")
    if sum(cell.startswith(PRICE_PREFIX) for cell in cells) > CURRENCIES_MAX:
        raise Invalid("line 1", f"has more than {CURRENCIES_MAX} currencies")
    return cells


def csv_heading(currencies: list[str]) -> str:
    """The first row of a file with prices in these currencies."""
    prices = (f"{PRICE_PREFIX}{currency}" for currency in currencies)
    return _line([*PRODUCT_COLUMNS, *SKU_COLUMNS, *prices])


def csv_rows(product: Product, currencies: list[str]) -> str:
    """The rows of a product: the inverse of CsvReader."""
    own: list[object] = [
        product.product_id,
        product.category_id,
        product.status,
        product.brand,
        *_texts(product.name),
        *_texts(product.description),
        " ".join(product.images),
        _json(product.attributes),
    ]
    rows = []
    for sku in product.skus:
        prices: Mapping[str, int] = {price.currency: price.amount_minor for price in sku.prices}
        active = "true" if sku.active else "false"
        cells = [sku.sku, _json(sku.options), sku.weight_grams, active]
        rows.append([*own, *cells, *(prices.get(currency, "") for currency in currencies)])
        own = [product.product_id, *[""] * (len(PRODUCT_COLUMNS) - 1)]
    if not rows:
        rows.append([*own, *[""] * (len(SKU_COLUMNS) + len(currencies))])
    return "".join(map(_line, rows))


def _texts(texts: Mapping[Any, str]) -> list[object]:
    return [texts.get(language, "") for language in LANGUAGES]


def _json(value: Mapping[Any, object]) -> str:
    return msgspec.json.encode(value).decode() if value else ""


def _line(cells: list[Any]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue()
