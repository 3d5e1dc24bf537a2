"""Sale documents: good ones are read, bad ones refused with every problem by field."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.admission.room.settings import RoomChanges, RoomOrder, RoomSettings
from engine.errors import InvalidDocument
from engine.sales import Money, parse_sale_document
from engine.sales.document import SKUS_MAX

SAMPLES = Path(__file__).parents[2] / "scripts" / "samples"
MISSING = object()


def document(**changes: object) -> dict[str, Any]:
    good: dict[str, Any] = {
        "sale_id": "double-11",
        "name": {"zh-CN": "双十一", "en": "Singles' Day"},
        "opens_at": "2027-11-11T00:00:00+08:00",
        "closes_at": "2027-11-11T23:59:59+08:00",
        "per_user_max": 2,
        "reservation_seconds": 900,
        "items": [item("phone-black"), item("phone-white")],
    }
    return {k: v for k, v in (good | changes).items() if v is not MISSING}


def item(sku: object = "phone-black", **changes: object) -> dict[str, Any]:
    good: dict[str, Any] = {
        "sku": sku,
        "name": {"en": "Phone"},
        "units": 10_000,
        "price": {"amount_minor": 129900, "currency": "CNY"},
    }
    return {k: v for k, v in (good | changes).items() if v is not MISSING}


def problems(raw: object) -> list[str]:
    with pytest.raises(InvalidDocument) as refused:
        parse_sale_document(msgspec.json.encode(raw))
    return [str(problem) for problem in refused.value.problems]


def fields(raw: object) -> list[str]:
    return [problem.split(": ")[0] for problem in problems(raw)]


def test_good_document_is_read_with_times_in_utc() -> None:
    sale = parse_sale_document(msgspec.json.encode(document()))
    assert sale.sale_id == "double-11"
    assert sale.opens_at == datetime(2027, 11, 10, 16, tzinfo=UTC)
    assert sale.auto_capture is False
    assert sale.items[1].price == Money(129900, "CNY")


@pytest.mark.parametrize(("name", "skus"), [("one-phone-drop", 1), ("singles-day", 200)])
def test_shipped_sample_is_a_good_document(name: str, skus: int) -> None:
    sale = parse_sale_document((SAMPLES / f"{name}.json").read_bytes())
    assert sale.sale_id == name
    assert len(sale.items) == skus
    for language in ("en", "zh-CN"):
        assert len({each.name[language] for each in sale.items}) == skus


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("sale_id", value) for value in ("", "Double", "-a", "a" * 49, "a.b", 7, None)),
        *(("name", value) for value in ({}, "text", {"en": ""}, {"en": " "}, {"en": 1})),
        *(("name", value) for value in ({"english language": "x"}, {"en": "x" * 201})),
        ("name", {"en": "line\nbreak"}),
        *(("opens_at", value) for value in ("2027-11-11T00:00:00", "soon", 1, None)),
        ("opens_at", "0001-01-01T00:00:00+08:00"),
        ("closes_at", "2027-11-11"),
        *(("per_user_max", value) for value in (0, -1, 1.5, "2", True, 10_001)),
        *(("reservation_seconds", value) for value in (0, 86_401, 2**63, "900", None)),
        *(("auto_capture", value) for value in (None, 0, "true")),
        *(("items", value) for value in ([], {}, None, "x", [item()] * (SKUS_MAX + 1))),
    ],
    ids=str,
)
def test_bad_field_is_named(field: str, value: object) -> None:
    assert fields(document(**{field: value})) == [field]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (item(sku), "sku")
        for sku in ("", "a b", "-a", "x" * 65, "a*1", "a,b", "a:available", "手机", 1, None)
    ]
    + [(item(units=units), "units") for units in (0, -1, 1_000_000_001, 1.0, "5", True, None)]
    + [(item(name={}), "name"), (item(price=5), "price"), (item(extra=1), "extra")]
    + [
        (item(price={"amount_minor": amount, "currency": "CNY"}), "price.amount_minor")
        for amount in (-1, 1.5, "100", None, 10**18)
    ]
    + [
        (item(price={"amount_minor": 1, "currency": currency}), "price.currency")
        for currency in ("cny", "CN", "YUAN", 156, None)
    ]
    + [(item(price={"amount_minor": 1, "currency": "CNY", "tax": 0}), "price.tax")]
    + [(item(**{name: MISSING}), name) for name in ("sku", "name", "units", "price")],
)
def test_bad_field_of_an_item_is_named_with_its_place(bad: dict[str, Any], field: str) -> None:
    raw = document(items=[item("first"), item("second"), item("third"), bad])
    assert fields(raw) == [f"items[3].{field}"]


@pytest.mark.parametrize("name", [name for name in document() if name != "auto_capture"])
def test_missing_field_is_named(name: str) -> None:
    assert problems(document(**{name: MISSING})) == [f"{name}: is missing"]


def test_all_problems_are_told_at_once() -> None:
    raw = document(
        sale_id="NO", per_user_max=0, note="x", items=[item(units=0), item("case", price={})]
    )
    assert sorted(fields(raw)) == sorted(
        [
            "sale_id",
            "per_user_max",
            "note",
            "items[0].units",
            "items[1].price.amount_minor",
            "items[1].price.currency",
        ]
    )


def test_window_must_not_be_empty() -> None:
    raw = document(closes_at="2027-11-11T00:00:00+08:00")
    assert problems(raw) == ["closes_at: must be later than opens_at"]


def test_sku_is_unique_and_currency_one() -> None:
    euros = item("b", price={"amount_minor": 1, "currency": "EUR"})
    assert problems(document(items=[item("a"), euros, item("a")])) == [
        "items[1].price.currency: must be CNY as in the items before",
        "items[2].sku: is that of items[0] too",
    ]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null x"])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidDocument, match="is not JSON"):
        parse_sale_document(body)


@pytest.mark.parametrize("raw", [None, [], "sale", 7])
def test_what_is_no_object_is_refused(raw: object) -> None:
    assert problems(raw) == ["must be an object"]


def test_number_of_problems_is_bounded() -> None:
    raw = document(items=[item(f"sku-{number}", units=0) for number in range(SKUS_MAX)])
    assert len(problems(raw)) == 100


def test_a_sale_has_no_room_unless_it_says_so() -> None:
    for raw in (document(), document(room=None)):
        assert parse_sale_document(msgspec.json.encode(raw)).room is None


def test_a_room_that_is_described_is_on_and_otherwise_as_usual() -> None:
    sale = parse_sale_document(msgspec.json.encode(document(room={})))
    assert sale.room == RoomSettings(on=True)


def test_a_room_is_read_in_full() -> None:
    room = {
        "on": False,
        "order": "draw",
        "prequeue_seconds": 0,
        "pace_max": 50,
        "over_admission": 2,
        "admission_seconds": 60,
        "absent_seconds": 20,
        "proof_difficulty": 50_000,
        "captcha": True,
    }
    read = parse_sale_document(msgspec.json.encode(document(room=room))).room
    assert read == RoomSettings(**room | {"order": RoomOrder.DRAW, "over_admission": 2.0})
    assert read.order is RoomOrder.DRAW


@pytest.mark.parametrize(
    ("room", "wrong"),
    [
        ([], ["room: must be an object"]),
        ("fifo", ["room: must be an object"]),
        ({"order": "raffle"}, ["room.order: must be fifo or draw"]),
        ({"order": ["draw"]}, ["room.order: must be fifo or draw"]),
        ({"on": 1}, ["room.on: must be true or false"]),
        ({"pace_max": 0}, ["room.pace_max: must be a whole number from 1 to 1000000"]),
        ({"pace_max": None}, None),
        ({"over_admission": True}, ["room.over_admission: must be a number from 1 to 10"]),
        ({"over_admission": 0.9}, ["room.over_admission: must be a number from 1 to 10"]),
        ({"over_admission": "2"}, ["room.over_admission: must be a number from 1 to 10"]),
        ({"seed_hash": "00"}, ["room.seed_hash: no such field"]),
        ({"revision": 7}, ["room.revision: no such field"]),
    ],
)
def test_what_is_wrong_with_a_room_is_named(room: object, wrong: list[str] | None) -> None:
    raw = document(room=room)
    if wrong is None:
        parse_sale_document(msgspec.json.encode(raw))
    else:
        assert problems(raw) == wrong


BOUNDS = {
    "prequeue_seconds": (0, 86_400),
    "pace_max": (1, 1_000_000),
    "over_admission": (1, 10),
    "admission_seconds": (10, 3600),
    "absent_seconds": (20, 300),
    "proof_difficulty": (0, 50_000_000),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_the_bounds_of_a_room_are_those_of_its_settings(name: str) -> None:
    for bound, outside in zip(BOUNDS[name], (-1, 1), strict=True):
        good, bad = {name: bound}, {name: bound + outside}
        room = parse_sale_document(msgspec.json.encode(document(room=good))).room
        assert room == msgspec.convert(good | {"on": True}, RoomSettings)
        assert fields(document(room=bad)) == [f"room.{name}"]
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, RoomSettings)
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, RoomChanges)


def test_what_may_be_set_may_be_changed() -> None:
    settings = set(RoomSettings.__struct_fields__) - {"revision", "seed_hash"}
    assert settings == set(RoomChanges.__struct_fields__)
