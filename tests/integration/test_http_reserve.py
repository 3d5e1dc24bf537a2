"""POST /v1/sales/{sale}/reservations: the whole contract, over real sockets and servers."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import jwt
import pytest
from redis.asyncio import Redis

from api.server import hot_sale_id
from api.tokens import Role, Tokens
from engine.clock import SystemClock
from engine.servers import EmbeddedValkey
from tests.support.front import SECRET, Served, serve

PATH = "/v1/sales/demo/reservations"
ONE = {"items": [{"sku": "phone-black", "quantity": 1}]}


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url) as served:
        await served.sell(stock={"phone-black": 100, "phone-white": 100})
        yield served


async def test_a_reservation_is_created_located_and_readable(served: Served) -> None:
    reply = await served.reserve("u1")
    assert reply.status == 201
    reservation = reply.json
    assert reservation["items"] == [{"sku": "phone-black", "quantity": 1}]
    assert reservation["sale_id"] == "demo"
    assert reservation["status"] == "reserved"
    assert reservation["reserved_until"].endswith("Z")
    shown = await served.get(reply.headers["Location"], user="u1")
    assert shown.json == reservation


async def test_the_same_key_gives_the_same_answer_and_another_body_is_refused(
    served: Served,
) -> None:
    first = await served.reserve("u1", key="click")
    again = await served.reserve("u1", key="click")
    other = await served.reserve("u1", key="click", quantity=2)
    assert (again.status, again.json) == (200, first.json)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (other.status, other.code) == (422, "idempotency_mismatch")


async def test_a_cart_is_shown_in_one_order_whatever_order_it_came_in(served: Served) -> None:
    items = [{"sku": "phone-white", "quantity": 1}, {"sku": "phone-black", "quantity": 1}]
    first = await served.post(PATH, user="u1", body={"items": items}, idempotency_key="k")
    again = await served.post(PATH, user="u1", body={"items": items[::-1]}, idempotency_key="k")
    assert [item["sku"] for item in first.json["items"]] == ["phone-black", "phone-white"]
    assert (again.status, again.json) == (200, first.json)


BAD_BODIES = [
    ({}, "items"),
    ([], ""),
    ("text", ""),
    (None, ""),
    ({"items": []}, "items"),
    ({"items": {}}, "items"),
    ({"items": None}, "items"),
    ({"items": [7]}, "items[0]"),
    ({"items": [ONE["items"][0]], "coupon": "x"}, "coupon"),
    ({"items": [{"sku": f"s{n}", "quantity": 1} for n in range(21)]}, "items"),
    ({"items": ONE["items"] * 2}, "items[1].sku"),
    ({"items": [{"sku": "phone-black"}]}, "items[0].quantity"),
    ({"items": [{"quantity": 1}]}, "items[0].sku"),
    ({"items": [{"sku": "phone-black", "quantity": 1, "price": 1}]}, "items[0].price"),
    *(
        ({"items": [{"sku": "phone-black", "quantity": quantity}]}, "items[0].quantity")
        for quantity in (0, -1, 10_001, 10**30, -(10**30), 1.5, "1", True, None, [], {})
    ),
    *(
        ({"items": [{"sku": sku, "quantity": 1}]}, "items[0].sku")
        for sku in ("", "x" * 65, "a b", "a*1,b", "a\n", "-a", "手机", 7, None, ["a"])
    ),
]


async def test_every_wrong_field_is_refused_by_name(served: Served) -> None:
    for body, field in BAD_BODIES:
        data = json.dumps(body).encode()
        reply = await served.post(PATH, user="u1", data=data, idempotency_key="k")
        assert (reply.status, reply.code) == (400, "invalid_request"), body
        assert reply.json["errors"][0]["field"] == field, (body, reply.json)


NO_JSON = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"items":"\xff"}',
    b"[" * 5000,
    b'{"items":[]}x',
    b"NaN",
    b"\0",
]


async def test_what_is_no_json_is_refused(served: Served) -> None:
    for data in NO_JSON:
        reply = await served.post(PATH, user="u1", data=data, idempotency_key="k")
        assert (reply.status, reply.code) == (400, "invalid_request"), data


async def test_another_content_type_is_refused(served: Served) -> None:
    for content_type in ("text/plain", "application/xml", "", "json"):
        reply = await served.post(
            PATH, user="u1", body=ONE, idempotency_key="k", content_type=content_type
        )
        assert (reply.status, reply.code) == (400, "invalid_request"), content_type


async def test_a_charset_beside_the_content_type_is_fine(served: Served) -> None:
    reply = await served.post(
        PATH,
        user="u1",
        body=ONE,
        idempotency_key="k",
        content_type="Application/JSON; charset=utf-8",
    )
    assert reply.status == 201


async def test_a_missing_or_unfit_key_is_refused(served: Served) -> None:
    for headers in ({}, *({"idempotency_key": key} for key in ("", "x" * 129, "ключ", "a\tb"))):
        reply = await served.post(PATH, user="u1", body=ONE, **headers)
        assert (reply.status, reply.code) == (400, "invalid_request"), headers
        assert "Idempotency-Key" in reply.json["detail"]


def foreign_tokens() -> list[str]:
    fresh = Tokens(SECRET, SystemClock()).issue("u1")
    header, claims, signature = fresh.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    return [
        "Bearer",
        "Bearer ",
        "Bearer garbage",
        f"Basic {fresh}",
        fresh,
        f"Bearer {header}.{claims}.{signature[::-1]}",
        f"Bearer {none}.{claims}.",
        f"Bearer {none}.{claims}.{signature}",
        f"Bearer {Tokens('another-secret-of-32-characters-!', SystemClock()).issue('u1')}",
        f"Bearer {Tokens(SECRET, SystemClock()).issue('u1', seconds=-60)}",
        f"Bearer {jwt.encode({'sub': 'u1'}, SECRET, algorithm='HS256')}",
        "Bearer \udcff",
    ]


async def test_without_a_genuine_token_nobody_buys(served: Served) -> None:
    async with await served.raw() as connection:
        for authorization in foreign_tokens():
            connection.send(
                f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
                "Idempotency-Key: k\r\nContent-Length: 0\r\n\r\n".encode(errors="surrogateescape")
            )
            answer = await connection.answer()
            assert answer.startswith(b"HTTP/1.1 401 "), authorization
            assert b'"code":"unauthenticated"' in answer
            assert b"WWW-Authenticate: Bearer" in answer


async def test_the_scheme_of_a_token_may_be_written_in_any_case(served: Served) -> None:
    token = served.tokens.issue("u1")
    reply = await served.post(PATH, body=ONE, idempotency_key="k", authorization=f"bEARER {token}")
    assert reply.status == 201


async def test_unknown_sales_and_skus_are_told_apart(served: Served) -> None:
    assert (await served.reserve("u1", sale="nope")).code == "unknown_sale"
    assert (await served.reserve("u1", sale="NOPE!")).code == "unknown_sale"
    assert (await served.reserve("u1", sku="phone-gold")).code == "unknown_sku"


async def test_the_limit_per_buyer_is_told(served: Served) -> None:
    assert (await served.reserve("u1", quantity=2)).status == 201
    reply = await served.reserve("u1", key="more")
    assert (reply.status, reply.code) == (409, "limit_reached")


async def test_gone_for_good_and_gone_for_now_are_told_apart(served: Served) -> None:
    await served.sell("small", stock={"phone-black": 1})
    await served.reserve("u1", sale="small")
    held = await served.reserve("u2", sale="small")
    too_many = await served.reserve("u2", sale="small", quantity=2)
    assert (held.status, held.code) == (409, "all_reserved")
    assert (too_many.status, too_many.code) == (409, "sold_out")


async def test_the_window_is_told_with_the_time_to_come_back(served: Served) -> None:
    await served.sell("later", opens_in=90)
    await served.sell("much-later", opens_in=10**6, closes_in=2 * 10**6)
    await served.sell("over", opens_in=-60, closes_in=-1)
    early, too_early, late = [
        await served.reserve("u1", sale=sale) for sale in ("later", "much-later", "over")
    ]
    assert (early.status, early.code) == (425, "not_started")
    assert 80 <= int(early.headers["Retry-After"]) <= 90
    assert too_early.headers["Retry-After"] == "3600"
    assert (late.status, late.code) == (410, "sale_ended")


async def test_a_fenced_sale_is_unavailable_and_its_copy_is_forgotten(served: Served) -> None:
    sale = await served.engine.directory.get("demo")
    assert sale is not None
    await served.engine.inventory.fence(sale.ref._replace(epoch=sale.epoch + 1))
    reply = await served.reserve("u1")
    assert (reply.status, reply.code) == (503, "unavailable")
    assert served.engine.directory.peek("demo") is None


async def test_a_body_over_the_limit_is_refused_with_and_without_its_length(
    served: Served,
) -> None:
    huge = json.dumps(ONE | {"x": "y" * 70_000}).encode()
    declared = await served.post(PATH, user="u1", data=huge, idempotency_key="k")
    assert (declared.status, declared.code) == (413, "body_too_large")
    token = served.tokens.issue("u1")
    async with await served.raw() as connection:
        connection.send(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nIdempotency-Key: k\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(9):
            connection.send(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
        answer = await connection.answer()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_chunked_body_within_the_limit_is_read(served: Served) -> None:
    token = served.tokens.issue("u1")
    body = json.dumps(ONE).encode()
    async with await served.raw() as connection:
        connection.send(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nIdempotency-Key: k\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for byte in body:
            connection.send(b"1\r\n" + bytes([byte]) + b"\r\n")
            await connection.writer.drain()
        connection.send(b"0\r\n\r\n")
        answer = await connection.answer()
    assert answer.startswith(b"HTTP/1.1 201 "), answer


async def test_a_client_that_expects_a_word_before_its_body_gets_it(served: Served) -> None:
    token = served.tokens.issue("u1")
    body = json.dumps(ONE).encode()
    async with await served.raw() as connection:
        connection.send(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nIdempotency-Key: k\r\nExpect: 100-continue\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body)
        answer = await connection.answer()
    assert answer.startswith(b"HTTP/1.1 201 ")


async def test_the_same_call_written_otherwise_is_the_same_call(served: Served) -> None:
    path = "/v1/sales/d%65mo/reservations?from=mail"
    assert hot_sale_id("POST", path) is None, "this test is about the other way in"
    token = served.tokens.issue("u1")
    body = json.dumps(ONE).encode()
    async with await served.raw() as connection:
        connection.send(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nIdempotency-Key: k\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = await connection.answer()
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert (await served.reserve("u1")).status == 200


async def test_request_ids_are_taken_over_if_sane_and_made_if_not(served: Served) -> None:
    mine = await served.post(PATH, user="u1", body=ONE, x_request_id="abc-123:def.4")
    odd = await served.get("/v1/sales", x_request_id="<script>")
    assert mine.headers["X-Request-Id"] == "abc-123:def.4"
    assert "<" not in odd.headers["X-Request-Id"]


async def test_personal_answers_are_not_kept_and_all_carry_the_security_headers(
    served: Served,
) -> None:
    made = await served.reserve("u1")
    for reply in (made, await served.get("/v1/sales"), await served.get("/nowhere")):
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "aiohttp" not in reply.headers["Server"]
    assert made.headers["Cache-Control"] == "no-store"


async def test_last_unit_goes_to_exactly_one_of_a_thousand_buyers(served: Served) -> None:
    await served.sell("last", stock={"phone-black": 1})
    replies = await asyncio.gather(*(served.reserve(f"u{n}", sale="last") for n in range(1000)))
    assert sorted({reply.status for reply in replies}) == [201, 409]
    assert sum(reply.status == 201 for reply in replies) == 1


async def test_an_operator_may_buy_too(served: Served) -> None:
    reply = await served.post(PATH, user="op-1", role=Role.OPERATOR, body=ONE, idempotency_key="k")
    assert reply.status == 201


@pytest.mark.parametrize("key", ["k", "another", ""])
async def test_kept_and_closed_connections_are_answered_alike(served: Served, key: str) -> None:
    # The hot route writes its answers itself where the connection stays open.
    assert (await served.reserve("u1")).status == 201
    body = ONE if key == "k" else {"items": [{"sku": "phone-black", "quantity": 2}]}
    call = {"user": "u1", "body": body, "idempotency_key": key, "x_request_id": "the-same-id"}

    kept = await served.post(PATH, **call)
    closed = await served.post(PATH, **call, connection="close")

    passing = {"Date", "Connection"}
    assert closed.headers["Connection"] == "close"
    assert (kept.status, kept.body) == (closed.status, closed.body)
    assert {name: value for name, value in kept.headers.items() if name not in passing} == {
        name: value for name, value in closed.headers.items() if name not in passing
    }
