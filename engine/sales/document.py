"""Reads sale documents and names everything that is wrong with one. Does no I/O."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast

import msgspec

from engine.admission.room.settings import (
    PREQUEUE_SECONDS_MAX,
    PROOF_DIFFICULTY_MAX,
    ROOM_PACE_MAX,
    RoomOrder,
    RoomSettings,
)
from engine.errors import Invalid, InvalidDocument
from engine.model import QUANTITY_MAX, SALE_ID, SHOP, SKU, UNITS_MAX, Money

SKUS_MAX: Final = 1000  # launch.lua takes no more in one atomic step.
DOCUMENT_BYTES_MAX: Final = 4 * 1024 * 1024  # 1000 SKUs with long names in many languages.
PROBLEMS_MAX: Final = 100  # Enough to mend a document; a wrong file has thousands.
RESERVATION_SECONDS_MAX: Final = 86_400  # A day: longer holds are no flash sale.
PRICE_MINOR_MAX: Final = 100_000_000_000  # Times the largest cart it stays below 2^63.
LANGUAGES_MAX: Final = 20
NAME_CHARACTERS_MAX: Final = 200

LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")  # BCP 47, as far as shops use it
CURRENCY = re.compile(r"[A-Z]{3}")

Value = TypeVar("Value")


class SaleItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One SKU of a sale: `units` are put up in all."""

    sku: str
    name: dict[str, str]
    units: int
    price: Money


class SaleDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A sale as an operator writes it, without what needs no saying. Times are UTC."""

    sale_id: str
    name: dict[str, str]
    opens_at: datetime
    closes_at: datetime
    per_user_max: int
    reservation_seconds: int
    items: tuple[SaleItem, ...]
    auto_capture: bool = False
    room: RoomSettings | None = None


def parse_sale_document(body: bytes) -> SaleDocument:
    """The document, or InvalidDocument with every problem by field (the first PROBLEMS_MAX)."""
    if len(body) > DOCUMENT_BYTES_MAX:
        raise InvalidDocument([Invalid("", f"is larger than {DOCUMENT_BYTES_MAX} bytes")])
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidDocument([Invalid("", f"is not JSON: {error}")]) from error
    problems: list[Invalid] = []
    document = _read_document(_Fields(raw, "", problems))
    if problems:
        raise InvalidDocument(problems[:PROBLEMS_MAX])
    return document


class _Fields:
    """One JSON object of the document. Remembers which of its fields were asked for.

    A field that is wrong is noted and read as None; the document is dropped in the end, so no
    caller ever sees that None.
    """

    def __init__(self, raw: object, path: str, problems: list[Invalid]) -> None:
        self._path = path
        self._problems = problems
        self._asked: set[str] = set()
        self._values: Mapping[str, Any] | None = None
        if isinstance(raw, dict):
            self._values = raw
        else:
            problems.append(Invalid(path, "must be an object"))

    def read(self, name: str, check: Callable[[Any], Value], default: Value | None = None) -> Value:
        """The field as `check` returns it. `check` raises ValueError with what must be."""
        self._asked.add(name)
        if self._values is None:
            return cast("Value", None)
        if name not in self._values:
            if default is None:
                self.refuse(name, "is missing")
            return cast("Value", default)
        try:
            return check(self._values[name])
        except ValueError as error:
            self.refuse(name, str(error))
            return cast("Value", None)

    def inner(self, name: str) -> "_Fields":
        """The object in this field."""
        self._asked.add(name)
        if self._values is not None and name not in self._values:
            self.refuse(name, "is missing")
            return _Fields({}, "", [])
        raw = {} if self._values is None else self._values[name]
        return _Fields(raw, self._at(name), [] if self._values is None else self._problems)

    def list_of(self, name: str) -> list["_Fields"]:
        """The objects in the list in this field."""
        values = self.read(name, _list)
        return [
            _Fields(value, f"{self._at(name)}[{position}]", self._problems)
            for position, value in enumerate(values or ())
        ]

    def has(self, name: str) -> bool:
        """Whether the field is there at all."""
        return name in (self._values or {})

    def refuse(self, name: str, problem: str) -> None:
        self._problems.append(Invalid(self._at(name), problem))

    def refuse_unknown(self) -> None:
        """Notes every field that nobody asked for."""
        for name in (self._values or {}).keys() - self._asked:
            self.refuse(name[:NAME_CHARACTERS_MAX], "no such field")

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def _read_document(fields: _Fields) -> SaleDocument:
    document = SaleDocument(
        sale_id=fields.read("sale_id", _sale_id),
        name=fields.read("name", _names),
        opens_at=fields.read("opens_at", _time),
        closes_at=fields.read("closes_at", _time),
        per_user_max=fields.read("per_user_max", _whole_number(1, QUANTITY_MAX)),
        reservation_seconds=fields.read(
            "reservation_seconds", _whole_number(1, RESERVATION_SECONDS_MAX)
        ),
        auto_capture=fields.read("auto_capture", _boolean, default=False),
        items=_read_items(fields),
        room=_read_room(fields),
    )
    if document.opens_at and document.closes_at and document.opens_at >= document.closes_at:
        fields.refuse("closes_at", "must be later than opens_at")
    fields.refuse_unknown()
    return document


def _read_items(fields: _Fields) -> tuple[SaleItem, ...]:
    items: list[SaleItem] = []
    first_of: dict[str, int] = {}
    currency = None
    for position, item_fields in enumerate(fields.list_of("items")):
        item = _read_item(item_fields)
        if item.sku and first_of.setdefault(item.sku, position) != position:
            item_fields.refuse("sku", f"is that of items[{first_of[item.sku]}] too")
        currency = currency or item.price.currency
        if item.price.currency and item.price.currency != currency:
            item_fields.refuse("price.currency", f"must be {currency} as in the items before")
        items.append(item)
    return tuple(items)


def _read_item(fields: _Fields) -> SaleItem:
    price = fields.inner("price")
    item = SaleItem(
        sku=fields.read("sku", _sku),
        name=fields.read("name", _names),
        units=fields.read("units", _whole_number(1, UNITS_MAX)),
        price=Money(
            amount_minor=price.read("amount_minor", _whole_number(0, PRICE_MINOR_MAX)),
            currency=price.read("currency", _currency),
        ),
    )
    price.refuse_unknown()
    fields.refuse_unknown()
    return item


def _read_room(fields: _Fields) -> RoomSettings | None:
    """The waiting room: what is left out is as it usually is, and a room that is described is on."""
    if not fields.has("room") or fields.read("room", _anything) is None:
        return None
    room, usual = fields.inner("room"), RoomSettings(on=True)
    settings = {name: room.read(name, check, getattr(usual, name)) for name, check in _ROOM.items()}
    pace_max = room.read("pace_max", _pace_max) if room.has("pace_max") else None
    room.refuse_unknown()
    return RoomSettings(**settings, pace_max=pace_max)


def _anything(value: object) -> object:
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list) or not 1 <= len(value) <= SKUS_MAX:
        raise ValueError(f"must be a list of 1 to {SKUS_MAX} objects")
    return value


def _whole_number(least: int, most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        # JSON's true is no number, although Python's True is an int.
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return check


def _number(least: float, most: float) -> Callable[[object], float]:
    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number from {least} to {most}")
        if not least <= value <= most:
            raise ValueError(f"must be a number from {least} to {most}")
        return float(value)

    return check


def _pace_max(value: object) -> int | None:
    return None if value is None else _whole_number(1, ROOM_PACE_MAX)(value)


def _order(value: object) -> RoomOrder:
    try:
        return RoomOrder(str(value))
    except ValueError:
        raise ValueError("must be fifo or draw") from None


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _sale_id(value: object) -> str:
    if not isinstance(value, str) or not SALE_ID.fullmatch(value):
        raise ValueError("must be 1 to 48 lower-case letters, digits and inner hyphens")
    if value == SHOP:
        raise ValueError(f"{SHOP!r} stands for what is sold outside of sales")
    return value


def _sku(value: object) -> str:
    if not isinstance(value, str) or not SKU.fullmatch(value):
        raise ValueError("must be 1 to 64 letters, digits, dots, hyphens and underscores")
    return value


def _currency(value: object) -> str:
    if not isinstance(value, str) or not CURRENCY.fullmatch(value):
        raise ValueError("must be an ISO 4217 code, three capital letters")
    return value


def _time(value: object) -> datetime:
    problem = "must be an RFC 3339 time with an offset, as in 2026-11-11T00:00:00+08:00"
    try:
        time = msgspec.convert(value, datetime) if isinstance(value, str) else None
        if time is None or time.tzinfo is None:
            raise ValueError(problem)
        return time.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise ValueError(problem) from error


def _names(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not 1 <= len(value) <= LANGUAGES_MAX:
        raise ValueError(f"must be an object of 1 to {LANGUAGES_MAX} languages and names")
    for language, name in value.items():
        if not LANGUAGE.fullmatch(language):
            raise ValueError(f"{language[:40]!r} is no language tag such as en or zh-CN")
        if not isinstance(name, str) or not _is_name(name):
            raise ValueError(
                f"{language} must be a text of 1 to {NAME_CHARACTERS_MAX} printable characters"
            )
    return value


def _is_name(text: str) -> bool:
    return bool(text.strip()) and len(text) <= NAME_CHARACTERS_MAX and text.isprintable()


# The bounds are those of RoomSettings; a test holds both together.
_ROOM: Final[dict[str, Callable[[Any], Any]]] = {
    "on": _boolean,
    "order": _order,
    "prequeue_seconds": _whole_number(0, PREQUEUE_SECONDS_MAX),
    "over_admission": _number(1, 10),
    "admission_seconds": _whole_number(10, 3600),
    "absent_seconds": _whole_number(20, 300),
    "proof_difficulty": _whole_number(0, PROOF_DIFFICULTY_MAX),
    "captcha": _boolean,
}
