"""Finding products over HTTP: relevance, both languages, mistypings, filters, facets, pages."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from redis.asyncio import Redis

from api.search import finder
from api.search.freshness import Freshness
from api.search.index import reindex
from api.search.statement import LISTED_MAX, MATCHES_MAX
from engine.servers import EmbeddedValkey
from tests.support.front import Reply, Served, serve
from tests.support.goods import GOODS, change, put_up, put_up_goods

ALL = {good[0] for good in GOODS}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await put_up_goods(served.engine.pool)
        yield served


async def search(served: Served, q: str | None = None, **query: Any) -> Any:
    return (await asked(served, q, **query)).json


async def asked(served: Served, q: str | None = None, language: str = "en", **query: Any) -> Reply:
    pairs = [] if q is None else [("q", q)]
    for name, value in query.items():
        pairs += [(name, each) for each in (value if isinstance(value, list) else [value])]
    reply = await served.get(f"/v1/products?{urlencode(pairs)}", accept_language=language)
    assert reply.status == 200, reply.body
    return reply


def ids(body: Any) -> list[str]:
    return [product["product_id"] for product in body["products"]]


async def test_phones_come_before_their_cases_and_those_in_stock_first(served: Served) -> None:
    for q in ("手机", "phone", "phones"):
        found = ids(await search(served, q))
        assert set(found[:3]) == {"phone-1", "phone-2", "phone-3"}, q
        assert set(found[3:]) == {"case-1", "case-2"}, q
    assert ids(await search(served, "手机"))[2] == "phone-2"  # sold out


async def test_a_case_is_found_as_a_case(served: Served) -> None:
    for q in ("手机壳", "phone case", "cases"):
        assert set(ids(await search(served, q))) == {"case-1", "case-2"}, q


async def test_words_narrow_and_forms_of_a_word_are_one(served: Served) -> None:
    assert ids(await search(served, "极光 耳机")) == ["ears-1"]
    assert ids(await search(served, "极光耳机")) == ["ears-1"]
    assert ids(await search(served, "headphone wireless")) == ["ears-1"]
    assert ids(await search(served, "folded phones")) == ["phone-3"]
    assert set(ids(await search(served, "headphones -wireless"))) == {"ears-2"}
    assert ids(await search(served, '"studio headphones"')) == ["ears-2"]
    assert ids(await search(served, '"headphones studio"')) == []


async def test_what_the_dictionary_cuts_otherwise_is_found_by_neighbouring_characters(
    served: Served,
) -> None:
    # 折叠手机 is cut into two words and 音室耳 into none that is in the name.
    assert ids(await search(served, "叠手")) == ["phone-3"]
    assert ids(await search(served, "音室耳机")) == ["ears-2"]
    assert ids(await search(served, "壶")) == ["kettle-1"]


async def test_a_mistyped_word_is_put_right_and_said_so(served: Served) -> None:
    for typed, meant, found in (
        ("headphnes", "headphones", {"ears-1", "ears-2"}),
        ("wireless haedphones", "wireless headphones", {"ears-1"}),
        ("耳几", "耳机", {"ears-1", "ears-2"}),
        ("蓝牙耳几", "蓝牙耳机", {"ears-1"}),
    ):
        body = await search(served, typed)
        assert body["corrected"] == meant
        assert set(ids(body)) == found
        assert (await search(served, meant))["corrected"] is None


async def test_nonsense_finds_nothing_and_is_not_corrected(served: Served) -> None:
    body = await search(served, "xqzzv", facets="true")
    assert (body["total"], body["products"], body["corrected"]) == (0, [], None)


async def test_where_nothing_has_all_words_those_with_most_are_shown_and_said_so(
    served: Served,
) -> None:
    ears = {"ears-1", "ears-2"}
    for q, left_out, found in (
        ("waterproof headphones", ["waterproof"], ears),
        ("防水耳机", ["防水"], ears),
        ("headphones waterproof -wireless", ["waterproof"], {"ears-2"}),
        ("aurora kettle", ["aurora"], {"kettle-1"}),  # what it is stays, its brand does not
        ('"leather case" headphones', ['"leather case"'], ears),
    ):
        body = await search(served, q)
        assert (body["left_out"], set(ids(body))) == (left_out, found), q
    # All its words are somewhere: only the filter leaves nothing.
    body = await search(served, "aurora headphones", price_max=1)
    assert (body["left_out"], body["total"]) == ([], 0)


async def test_names_and_prices_are_in_the_language_and_currency_asked_for(served: Served) -> None:
    reply = await asked(served, "kettle", language="zh-CN,en;q=0.5", currency="USD")
    product = reply.json["products"][0]
    assert product["name"] == "暖炉快速电水壶"
    assert product["price"] == {"amount_minor": 2842, "currency": "USD"}
    assert reply.headers["Content-Language"] == "zh-CN"
    assert reply.headers["Vary"] == "Accept-Language"
    english = (await search(served, "kettle"))["products"][0]
    assert english["name"] == "Hearth quick kettle"
    assert english["price"] == {"amount_minor": 19900, "currency": "CNY"}


async def test_without_a_listed_price_the_rate_of_the_day_makes_one(served: Served) -> None:
    body = await search(served, "kettle", currency="EUR")
    assert body["products"][0]["price"] is None
    await served.engine.pool.execute(
        "INSERT INTO exchange_rates VALUES ('CNY', 'EUR', '2020-01-01', 0.125, 'test')"
    )
    body = await search(served, "kettle", currency="EUR", price_min=2400, price_max=2500)
    assert body["products"][0]["price"] == {"amount_minor": 2488, "currency": "EUR"}
    assert ids(await search(served, "kettle", currency="EUR", price_max=2400)) == []


async def test_filters_each_narrow_and_all_hold_together(served: Served) -> None:
    assert set(ids(await search(served, category="digital"))) == ALL - {"kettle-1"}
    assert set(ids(await search(served, category="phones"))) == {"phone-1", "phone-2", "phone-3"}
    assert set(ids(await search(served, brand=["Lumen", "Hearth"]))) == {
        "case-2", "phone-2", "ears-2", "kettle-1",
    }  # fmt: skip
    assert set(ids(await search(served, in_stock="true"))) == ALL - {"phone-2"}
    assert set(ids(await search(served, price_min=59900, price_max=199900))) == {
        "ears-1", "ears-2", "phone-2",
    }  # fmt: skip
    both = {"category": "phones", "brand": "Aurora", "in_stock": "true", "price_max": 500000}
    assert ids(await search(served, "phone", **both)) == ["phone-1"]
    assert ids(await search(served, category="nowhere", facets="true")) == []


async def test_only_what_a_sale_offers_now_is_on_sale(served: Served) -> None:
    now = datetime.now(UTC)
    stock = {"ears-1-0": 5}
    await served.sell("now", stock=stock)
    await served.sell("later", stock=stock)
    await served.engine.pool.execute(
        "UPDATE sales SET opens_at = $1, closes_at = $2 WHERE sale_id = 'later'",
        now + timedelta(hours=1), now + timedelta(hours=2),
    )  # fmt: skip
    body = await search(served, on_sale="true", facets="true")
    assert ids(body) == ["ears-1"]
    assert body["products"][0]["on_sale"] == ["now"]
    assert (await search(served, "kettle"))["products"][0]["on_sale"] == []


async def test_facets_add_up_and_each_is_counted_without_its_own_filter(served: Served) -> None:
    facets = (await search(served, facets="true"))["facets"]
    assert {each["category_id"]: each["count"] for each in facets["categories"]} == {
        "digital": 7, "home": 1,
    }  # fmt: skip
    assert {each["name"] for each in facets["categories"]} == {"Digital", "Home"}
    assert sum(each["count"] for each in facets["brands"]) == len(GOODS)
    assert sum(each["count"] for each in facets["prices"]) == len(GOODS)
    assert facets["are_least"] is False
    body = await search(served, "手机", category="digital", brand="Aurora", facets="true")
    facets = body["facets"]
    assert body["total"] == 3
    assert {each["brand"]: each["count"] for each in facets["brands"]} == {"Aurora": 3, "Lumen": 2}
    assert {each["category_id"]: each["count"] for each in facets["categories"]} == {
        "phones": 2, "phone-cases": 1,
    }  # fmt: skip
    assert sum(each["count"] for each in facets["prices"]) == 3
    for band in facets["prices"]:
        low, high = band["price_from"]["amount_minor"], band["price_below"]
        most = high["amount_minor"] - 1 if high else None
        bounds = {"price_min": low} | ({"price_max": most} if most else {})
        narrowed = await search(served, "手机", category="digital", brand="Aurora", **bounds)
        assert narrowed["total"] == band["count"]


async def test_each_order_is_the_order_it_says(served: Served) -> None:
    yuan = {good[0]: good[5] for good in GOODS}
    cheap = ids(await search(served, sort="price_asc"))
    assert [yuan[each] for each in cheap] == sorted(yuan.values())
    assert ids(await search(served, sort="price_desc")) == cheap[::-1]
    assert ids(await search(served)) == [good[0] for good in reversed(GOODS)]
    pool = served.engine.pool
    await pool.execute("INSERT INTO product_ratings VALUES ('ears-1', 0, 0, '{0,0,0,0,0}')")
    await pool.execute("UPDATE product_ratings SET count = 2, sum = 9")
    await Freshness(pool).freshen_once()
    best = (await search(served, sort="rating"))["products"][0]
    assert (best["product_id"], best["rating"], best["ratings"]) == ("ears-1", 4.5, 2)


async def test_pages_neither_repeat_nor_miss_what_is_alike(served: Served) -> None:
    async with served.engine.pool.acquire() as connection, connection.transaction():
        for number in range(8):
            await put_up(
                connection,
                (f"twin-{number}", "kettles", "Hearth", "Twin kettle", "双生水壶", 50, 1),
            )
    twins = {f"twin-{n}" for n in range(8)}
    for sort in ("relevance", "newest", "rating", "price_asc", "price_desc"):
        assert sorted(await paged(served, "twin kettle", sort=sort)) == sorted(twins), sort
        listed = await paged(served, None, sort=sort, category="kettles")
        assert sorted(listed) == sorted(twins | {"kettle-1"}), sort


async def paged(served: Served, q: str | None, **query: Any) -> list[str]:
    """All there is, three at a time."""
    seen, after = [], {}
    while True:
        body = await search(served, q, limit=3, **query, **after)
        seen += ids(body)
        if body["next"] is None:
            return seen
        after = {"after": body["next"]}


async def test_a_page_of_one_order_is_none_of_another(served: Served) -> None:
    after = (await search(served, sort="newest", limit=2))["next"]
    for wrong in (f"sort=rating&after={after}", "after=AAAA", "after=%00", "after=W10="):
        reply = await served.get(f"/v1/products?{wrong}")
        assert (reply.status, reply.code) == (400, "invalid_request"), wrong


HOSTILE = [
    "!!! & | ()", ":*", "<->", "a:*b & c", "''", "\\", "' | 'x", '"', '"a', "-", "--a", "-a", "-手机",
    "😀🎉", "的", "a" * 200, "字" * 200, "- " * 100, '" ' * 100, "or or or", "%", "_", "NOT a", "1e308",
    "\u202e手机", "ａｂｃ", "null", "{}", "$1", "x' OR 1=1 --",
]  # fmt: skip


async def test_no_text_breaks_a_search(served: Served) -> None:
    for q in HOSTILE:
        for path in ("products?facets=true&", "suggestions?"):
            reply = await served.get(f"/v1/{path}q={quote(q)}")
            assert reply.status == 200, (q, reply.body)
    for q, sort in ((q, sort) for q in ("-a", "-手机") for sort in ("relevance", "price_asc")):
        body = await search(served, q, sort=sort)
        assert body["total"] == len(body["products"])


WRONG = [
    "q=" + "a" * 10_000, "q=%00", "q=%0a", "limit=0", "limit=101", "limit=x", "sort=best",
    "price_min=-1", "price_max=1e9", "currency=XYZ", "currency=cny", "brand=", "in_stock=maybe",
    "after=" + "A" * 600, "colour=red", "category=%00", "q=a&q=b",
]  # fmt: skip


async def test_what_breaks_a_rule_is_refused(served: Served) -> None:
    for query in WRONG:
        reply = await served.get(f"/v1/products?{query}")
        assert (reply.status, reply.code) == (400, "invalid_request"), query[:40]


async def test_a_change_is_found_at_once_and_what_is_archived_no_more(served: Served) -> None:
    pool = served.engine.pool
    renamed = {"en": "Hearth samovar", "zh-CN": "暖炉茶炊"}
    await change(
        pool, "UPDATE products SET name = $1 WHERE product_id = 'kettle-1'", renamed,
        products=["kettle-1"],
    )  # fmt: skip
    assert ids(await search(served, "samovar")) == ["kettle-1"]
    assert ids(await search(served, "茶炊")) == ["kettle-1"]
    assert ids(await search(served, "quick")) == []
    await change(
        pool, "UPDATE products SET status = 'archived' WHERE product_id = 'kettle-1'",
        products=["kettle-1"],
    )  # fmt: skip
    assert ids(await search(served, "samovar")) == []
    assert set(ids(await search(served))) == ALL - {"kettle-1"}


async def test_stock_that_runs_out_leaves_the_filter_within_a_pass(served: Served) -> None:
    pool = served.engine.pool
    freshness = Freshness(pool)
    while await freshness.freshen_once():
        pass
    for ordered, in_stock in ((7, False), (0, True)):
        await pool.execute("UPDATE sale_items SET ordered = $1 WHERE sku = 'ears-1-0'", ordered)
        assert (await search(served, "极光耳机"))["products"][0]["in_stock"] is in_stock
        assert await freshness.freshen_once() == 1
        found = ids(await search(served, "耳机", in_stock="true"))
        assert ("ears-1" in found) is in_stock
    await pool.execute("UPDATE sale_items SET ordered = 3 WHERE sku = 'ears-1-0'")
    assert await freshness.freshen_once() == 0, "nothing ran out: nothing is noted"


async def test_the_index_can_be_written_anew(served: Served) -> None:
    pool = served.engine.pool
    await pool.execute("DELETE FROM product_search")
    assert (await search(served))["total"] == 0
    told: list[int] = []
    assert await reindex(pool, told.append) == len(GOODS)
    assert told[-1] == len(GOODS)
    assert set(ids(await search(served))) == ALL


async def test_more_matches_than_are_looked_at_are_said_to_be_at_least_so_many(
    served: Served,
) -> None:
    await served.engine.pool.execute(
        "INSERT INTO products (product_id, category_id, brand, name, description)"
        " SELECT 'many-' || n, 'kettles', 'Hearth', '{}', '{}' FROM generate_series(1, $1) AS n",
        LISTED_MAX,
    )  # fmt: skip
    await served.engine.pool.execute(
        "INSERT INTO product_search (product_id, path, brand, prices, in_stock, created_at, title, words)"
        " SELECT 'many-' || n, '{home,kettles}', 'Hearth', '{}', true, now(), 'kettl', '''kettl'' ''in=home'''"
        " FROM generate_series(1, $1) AS n",
        LISTED_MAX,
    )  # fmt: skip
    for q, most in (("kettle", MATCHES_MAX), (None, LISTED_MAX)):
        body = await search(served, q, facets="true", limit=5)
        assert (body["total"], body["total_is_least"]) == (most, True)
        assert body["facets"]["are_least"] is True
        assert len(body["products"]) == 5
    # A filter that leaves few does not make the counts without it exact.
    few = await search(served, "kettle", brand="Nobody", facets="true")
    assert (few["total"], few["facets"]["are_least"]) == (0, True)
    # However many mention a word, the thing itself comes first.
    assert ids(await search(served, "kettle", limit=1)) == ["kettle-1"]


async def test_a_search_that_takes_too_long_is_stopped_and_says_so(served: Served) -> None:
    pool = served.engine.pool
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE product_search")
        reply = await served.get("/v1/products?q=phone")
        assert (reply.status, reply.code) == (503, "overloaded")
        assert "narrower" in reply.json["detail"]
    assert (await search(served, "phone"))["total"] == 5


async def test_searches_take_no_more_connections_than_their_share(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "PLACE_SECONDS_MAX", 0)
    async with AsyncExitStack() as stack:
        for _ in range(finder.SEARCHES_MAX):
            await stack.enter_async_context(finder.bounded(served.engine.pool))
        reply = await served.get("/v1/products?q=phone")
        assert (reply.status, reply.code) == (503, "overloaded")
        assert await served.engine.pool.fetchval("SELECT 1") == 1
    assert (await search(served, "phone"))["total"] == 5


async def test_suggestions_begin_as_typed_in_either_language(served: Served) -> None:
    async def suggested(q: str) -> list[tuple[str, str]]:
        reply = await served.get(f"/v1/suggestions?q={quote(q)}")
        return [(each["kind"], each["text"]) for each in reply.json["suggestions"]]

    assert (await suggested("手"))[:2] == [("category", "手机"), ("category", "手机壳")]
    assert ("brand", "Aurora") in await suggested("aur")
    assert ("product", "Aurora folding phone") in await suggested("Aurora f")
    assert ("product", "Aurora folding phone") in await suggested("folding")
    assert await suggested("studio headphones lum") == [("word", "studio headphones lumen")]
    assert await suggested("zzz") == []
    for q in ("a", "p", "极"):
        found = await suggested(q)
        assert 0 < len(found) <= 10
        assert len({text.lower() for _, text in found}) == len(found)
