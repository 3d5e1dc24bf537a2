"""Exchange rates: data with a date."""

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from api.catalogue.offers import offers
from api.catalogue.staging import store_products
from api.demo.catalogue import products
from api.demo.shop import put_categories
from api.rates.store import Rate, Rates
from api.tokens import Role
from engine.servers import EmbeddedValkey
from engine.store.database import Pool
from tests.support.front import Reply, Served, serve


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        yield served


async def put(served: Served, *rates: dict[str, str]) -> Reply:
    usual = {"base": "CNY", "quote": "USD", "valid_on": "2026-01-01", "source": "bank"}
    body = {"rates": [usual | rate for rate in rates]}
    path = "/v1/admin/exchange-rates"
    return await served.call("PUT", path, user="op-1", role=Role.OPERATOR, body=body)


async def test_the_newest_rate_that_is_valid_on_the_day_counts(served: Served) -> None:
    old, new = {"rate": "0.14"}, {"rate": "0.1500", "valid_on": "2026-03-01"}
    assert (await put(served, old, new)).json == {"changed": 2}
    assert (await put(served, old, new)).json == {"changed": 0}
    for day, rates in (
        ("2025-12-31", []),
        ("2026-01-01", ["0.14"]),
        ("2026-02-28", ["0.14"]),
        ("2026-03-01", ["0.15"]),
    ):
        shown = (await served.get(f"/v1/exchange-rates?on={day}")).json
        assert [rate["rate"] for rate in shown["rates"]] == rates, day
        assert shown["on"] == day
    none = (await served.get("/v1/exchange-rates?on=2026-03-01&quote=EUR")).json
    assert none["rates"] == []


UNFIT = (
    {"rate": "0"},
    {"rate": "0.000"},
    {"rate": "-1"},
    {"rate": "1e9"},
    {"rate": "0.12345678901"},
    {"rate": "12345678901"},
    {"rate": "NaN"},
    {"rate": "1", "quote": "CNY"},
    {"rate": "1", "quote": "XYZ"},
    {"rate": "1", "valid_on": "2026-02-30"},
    {"rate": "1", "source": ""},
)


async def test_an_unfit_rate_is_refused_and_a_change_is_in_the_audit_log(served: Served) -> None:
    for rate in UNFIT:
        reply = await put(served, rate)
        assert (reply.status, reply.code) == (400, "invalid_request"), rate
    await put(served, {"rate": "0.14"})
    reply = await served.call("GET", "/v1/admin/audit", user="op-1", role=Role.OPERATOR)
    (entry,) = reply.json["entries"]
    assert (entry["actor"], entry["action"]) == ("op-1", "put_exchange_rates")
    assert entry["detail"] == {"rates": ["CNY/USD 0.14 from 2026-01-01"]}


async def test_an_offer_is_priced_by_its_list_or_by_the_rate_of_the_day(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await put_categories(connection)
        await store_products(connection, products(7, 1))
    days = [date(2026, 1, 1), date(2026, 3, 1)]
    rates = [
        Rate("CNY", "JPY", day, Decimal(rate), "t")
        for day, rate in zip(days, ("20", "21"), strict=True)
    ]
    await Rates(pool).put(rates, "tester")
    async with pool.acquire() as connection:
        for currency, day, price in (
            ("CNY", date(2025, 1, 1), 449900),
            ("USD", date(2025, 1, 1), 62900),
            ("JPY", date(2025, 12, 31), None),
            ("JPY", date(2026, 2, 1), 89980),  # A yen has no smaller unit.
            ("JPY", date(2026, 3, 1), 94479),
        ):
            found = await offers(connection, ["phone-black", "nope"], currency, on=day)
            assert found.keys() == {"phone-black"}
            assert found["phone-black"].unit_price_minor == price, (currency, day)
