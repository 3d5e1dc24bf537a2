"""The demo shop's shipping methods: two, for China, the United States and the rest of the world."""

from typing import Final

import msgspec

from api.shipping.catalogue import put_method
from api.shipping.documents import MethodDocument
from engine.store.database import Connection

# Regions that couriers charge more for, as buyers and forms spell them.
FAR: Final = [
    "Xinjiang", "新疆", "新疆维吾尔自治区", "Tibet", "Xizang", "西藏", "西藏自治区", "Qinghai", "青海", "青海省",
    "Inner Mongolia", "内蒙古", "内蒙古自治区",
]  # fmt: skip
FAR_US: Final = ["Alaska", "AK", "Hawaii", "HI"]


def _fee(currency: str, first: int, step: int, free_from: int | None = None) -> dict[str, object]:
    """Per first and further kilogram, up to the 30 kg that couriers carry."""
    return {
        "currency": currency, "first_grams": 1000, "first_minor": first, "step_grams": 1000,
        "step_minor": step, "grams_max": 30_000, "free_from_minor": free_from,
    }  # fmt: skip


METHODS: Final = {
    "standard": {
        "name": {"en": "Standard", "zh-CN": "标准快递"},
        "carrier": "sandbox",
        "position": 1,
        "zones": [
            {"country": "CN", "regions": FAR, "days_min": 4, "days_max": 8,
             "fees": [_fee("CNY", 1800, 1000), _fee("USD", 260, 140)]},
            {"country": "CN", "days_min": 2, "days_max": 4,
             "fees": [_fee("CNY", 800, 200, 9900), _fee("USD", 120, 30, 1400)]},
            {"country": "US", "regions": FAR_US, "days_min": 8, "days_max": 16,
             "fees": [_fee("USD", 1290, 800), _fee("CNY", 9000, 5600)]},
            {"country": "US", "days_min": 5, "days_max": 9,
             "fees": [_fee("USD", 590, 300, 9900), _fee("CNY", 4200, 2100, 70_000)]},
            {"country": "*", "days_min": 7, "days_max": 20,
             "fees": [_fee("USD", 1490, 900), _fee("CNY", 10_500, 6300)]},
        ],
    },
    "next-day": {
        "name": {"en": "Next day", "zh-CN": "次日达"},
        "carrier": "sandbox",
        "position": 2,
        "zones": [
            # A zone without fees is not served: no next day where the roads are long.
            {"country": "CN", "regions": FAR, "days_min": 1, "days_max": 1, "fees": []},
            {"country": "CN", "days_min": 1, "days_max": 1,
             "fees": [_fee("CNY", 2000, 1200), _fee("USD", 290, 170)]},
            {"country": "US", "regions": FAR_US, "days_min": 1, "days_max": 1, "fees": []},
            {"country": "US", "days_min": 1, "days_max": 1,
             "fees": [_fee("USD", 2490, 900), _fee("CNY", 17_500, 6300)]},
            {"country": "*", "days_min": 2, "days_max": 4,
             "fees": [_fee("USD", 4990, 2500), _fee("CNY", 35_000, 17_500)]},
        ],
    },
}  # fmt: skip


async def seed_shipping(connection: Connection) -> int:
    """Adds those that are missing; returns how many. What an operator changed stays."""
    known = {
        row["method_id"] for row in await connection.fetch("SELECT method_id FROM shipping_methods")
    }
    missing = [method_id for method_id in METHODS if method_id not in known]
    async with connection.transaction():
        for method_id in missing:
            document = msgspec.convert(METHODS[method_id], MethodDocument)
            await put_method(connection, method_id, document)
    return len(missing)
