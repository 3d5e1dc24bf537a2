"""Reviews: by buyers only, one for each SKU, summed up without scanning, moderated, voted for."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis

from api.paging import cursor_text
from api.tokens import Role
from engine.servers import EmbeddedValkey
from tests.support.front import Reply, Served, serve

GOOD = {"sku": "phone-black", "rating": 5, "text": "很好用，屏幕清楚。\nWorth it."}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await served.engine.pool.execute(
            """
            INSERT INTO categories (category_id, path, name) VALUES ('phones', '{phones}', '{}');
            INSERT INTO products (product_id, category_id, brand, name, description)
            VALUES ('phone', 'phones', 'Lan', '{"en": "Phone"}', '{}');
            INSERT INTO skus (sku, product_id) VALUES ('phone-black', 'phone'), ('phone-white', 'phone');
            """
        )
        yield served


async def bought(served: Served, user: str, sku: str = "phone-black", status: str = "paid") -> None:
    """As if the user had bought it."""
    await served.engine.pool.execute(
        """
        INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency, status,
                            reserved_at, reserved_until)
        VALUES ('shop', $1, $2, $3, 100, 'CNY', $4, now(), now())
        """,
        f"{user}-{sku}".ljust(20, "0"),
        user,
        {sku: 1},
        status,
    )


async def review(served: Served, user: str, **changes: object) -> Reply:
    await bought(served, user)
    return await served.post("/v1/reviews", user=user, body=GOOD | changes)


async def page(served: Served, query: str = "") -> Any:
    return (await served.get(f"/v1/products/phone/reviews{query}")).json


async def test_a_buyer_reviews_what_was_bought_and_everybody_reads_it(served: Served) -> None:
    images = ["https://images.example/1.jpg"]
    written = await review(served, "u1", images=images)
    assert written.status == 201, written.body
    assert written.json["state"] == "published"
    shown = await page(served)
    assert shown["rating"] == {"average": 5.0, "count": 1, "stars": [0, 0, 0, 0, 1]}
    (only,) = shown["reviews"]
    assert (only["text"], only["images"], only["sku"]) == (GOOD["text"], images, "phone-black")
    assert "user_id" not in only
    assert "state" not in only
    assert (await served.get(written.headers["Location"])).json == only


async def test_who_has_not_bought_may_not_review(served: Served) -> None:
    assert (await served.post("/v1/reviews", user="u1", body=GOOD)).code == "not_bought"
    for status in ("awaiting_payment", "cancelled", "expired", "refunded"):
        await bought(served, status, status=status)
        await bought(served, status, sku="phone-white")
        refused = await served.post("/v1/reviews", user=status, body=GOOD)
        assert refused.code == "not_bought", status


async def test_of_reviews_written_at_once_by_one_buyer_one_is_kept(served: Served) -> None:
    await bought(served, "u1")
    replies = await asyncio.gather(
        *(served.post("/v1/reviews", user="u1", body=GOOD) for _ in range(6))
    )
    assert sorted(reply.status for reply in replies) == [201, *[409] * 5]
    assert {reply.code for reply in replies} == {None, "reviewed_already"}
    assert (await page(served))["rating"]["count"] == 1


async def test_what_is_no_review_is_refused_by_field(served: Served) -> None:
    await bought(served, "u1")
    for changes in (
        {"rating": 0},
        {"rating": 6},
        {"text": ""},
        {"text": "  \n "},
        {"text": "x" * 2001},
        {"text": "bell \x07"},
        {"images": ["http://images.example/1.jpg"]},
        {"images": ["javascript:alert(1)"]},
        {"images": ["https://i.example/1"] * 10},
    ):
        refused = await served.post("/v1/reviews", user="u1", body=GOOD | changes)
        assert (refused.status, refused.code) == (400, "invalid_request"), changes
        assert refused.json["errors"][0]["field"].startswith(next(iter(changes)))


async def test_only_its_writer_changes_a_review_or_takes_it_back(served: Served) -> None:
    path = (await review(served, "u1")).headers["Location"]
    assert (await served.call("PATCH", path, user="u2", body={"rating": 1})).status == 404
    assert (await served.call("DELETE", path, user="u2")).status == 404
    changed = await served.call("PATCH", path, user="u1", body={"rating": 2, "text": "Broke."})
    assert (changed.json["rating"], changed.json["text"]) == (2, "Broke.")
    assert (await page(served))["rating"]["average"] == 2.0
    assert (await served.call("DELETE", path, user="u1")).status == 200
    assert (await page(served)) == {
        "rating": {"average": None, "count": 0, "stars": [0] * 5},
        "reviews": [],
    }


async def test_a_rejected_review_is_seen_by_its_writer_alone_who_learns_why(served: Served) -> None:
    written = await review(served, "u1")
    path = written.headers["Location"]
    moderation = f"/reviews/{written.json['review_id']}/moderation"
    refused = await served.operate(moderation, {"state": "rejected"})
    assert refused.code == "invalid_request"
    await served.operate(moderation, {"state": "rejected", "reason": "A telephone number."})
    assert (await served.get(path)).status == 404
    assert (await page(served))["rating"]["count"] == 0
    own = (await served.get(path, user="u1")).json
    assert (own["state"], own["state_reason"]) == ("rejected", "A telephone number.")
    for text in ("Without it.", "Still without it."):
        again = await served.call("PATCH", path, user="u1", body={"text": text})
        assert again.json["state"] == "pending"
    await served.operate(moderation, {"state": "published"})
    assert (await page(served))["rating"]["count"] == 1
    actions = await served.engine.pool.fetch("SELECT action FROM audit_log ORDER BY entry_id")
    assert [row["action"] for row in actions] == ["review_moderated"] * 2


async def test_with_moderation_nothing_is_shown_before_somebody_looked(
    redis: Redis, valkey: EmbeddedValkey, served: Served
) -> None:
    url = str(served.engine.settings.postgres_url)
    async with serve(valkey.url, url, reviews_moderated=True) as careful:
        written = await review(careful, "u1")
        assert written.json["state"] == "pending"
        assert (await page(careful))["reviews"] == []
        support = {"user": "s1", "role": Role.SUPPORT}
        queue = (await careful.get("/v1/admin/reviews?state=pending", **support)).json["reviews"]
        assert [entry["user_id"] for entry in queue] == ["u1"]


async def test_products_are_to_be_found_by_their_new_stars(served: Served) -> None:
    await review(served, "u1")
    stale = await served.engine.pool.fetchval("SELECT count(*) FROM search_stale")
    assert stale > 0


async def test_a_vote_counts_once_and_never_for_oneself(served: Served) -> None:
    path = (await review(served, "u1")).headers["Location"] + "/vote"
    assert (await served.call("PUT", path, user="u1")).code == "forbidden"
    await asyncio.gather(*(served.call("PUT", path, user=f"v{n % 3}") for n in range(9)))
    assert (await page(served))["reviews"][0]["helpful"] == 3
    back = await asyncio.gather(*(served.call("DELETE", path, user="v0") for _ in range(3)))
    assert [reply.json["helpful"] for reply in back][-1] == 2
    assert (await page(served))["reviews"][0]["helpful"] == 2


async def test_the_shop_answers_and_takes_its_answer_back(served: Served) -> None:
    review_id = (await review(served, "u1")).json["review_id"]
    reply = {"user": "op", "role": Role.OPERATOR}
    path = f"/v1/admin/reviews/{review_id}/reply"
    for text in ("Thank you.", "Thank you!"):
        assert (await served.call("PUT", path, body={"text": text}, **reply)).status == 200
    assert (await page(served))["reviews"][0]["reply"]["text"] == "Thank you!"
    assert (await served.call("DELETE", path, **reply)).status == 200
    assert "reply" not in (await page(served))["reviews"][0]
    assert (await served.call("PUT", path, user="u1", body={"text": "Mine."})).status == 403


@pytest.mark.parametrize("sort", ["newest", "helpful"])
async def test_pages_neither_repeat_nor_miss_a_review(served: Served, sort: str) -> None:
    written = [(await review(served, f"u{n}", rating=1 + n % 5)).json for n in range(7)]
    votes = served.engine.pool.execute(
        "UPDATE reviews SET helpful = 1 WHERE review_id = ANY ($1)",
        [each["review_id"] for each in written[:3]],
    )
    await votes
    beyond = cursor_text(["0001-01-01T00:00:00+12:00", "rev"])
    assert (await page(served, f"?after={beyond}"))["code"] == "invalid_request"
    seen: list[str] = []
    query = f"?sort={sort}&limit=2"
    while query:
        shown = await page(served, query)
        seen += [each["review_id"] for each in shown["reviews"]]
        more = shown.get("next")
        query = f"?sort={sort}&limit=2&after={more}" if more else ""
    assert sorted(seen) == sorted(each["review_id"] for each in written)
    if sort == "newest":
        assert seen == [each["review_id"] for each in reversed(written)]
    else:
        assert set(seen[:3]) == {each["review_id"] for each in written[:3]}


async def test_sums_are_what_counting_gives_after_whatever_happened(served: Served) -> None:
    dice = Random(7)
    pool = served.engine.pool
    ids = [(await review(served, f"u{n}", rating=1 + n % 5)).json["review_id"] for n in range(10)]
    for _ in range(60):
        review_id = dice.choice(ids)
        match dice.randrange(4):
            case 0:
                await pool.execute("DELETE FROM reviews WHERE review_id = $1", review_id)
            case 1:
                await pool.execute(
                    "UPDATE reviews SET rating = $2 WHERE review_id = $1",
                    review_id,
                    dice.randint(1, 5),
                )
            case _:
                await pool.execute(
                    "UPDATE reviews SET state = $2, rating = $3 WHERE review_id = $1",
                    review_id,
                    dice.choice(["pending", "published", "rejected"]),
                    dice.randint(1, 5),
                )
    kept = await pool.fetchrow("SELECT count, sum, stars FROM product_ratings")
    counted = await pool.fetch(
        "SELECT rating, count(*) AS n FROM reviews WHERE state = 'published' GROUP BY rating"
    )
    stars = {row["rating"]: row["n"] for row in counted}
    assert list(kept["stars"]) == [stars.get(number, 0) for number in range(1, 6)]
    assert kept["count"] == sum(stars.values())
    assert kept["sum"] == sum(number * n for number, n in stars.items())
