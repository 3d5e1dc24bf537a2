"""The contract is served to programs and to people, once made, and asks no one else for anything."""

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from api.app import CONTRACT
from tests.support.front import Served, serve


@pytest.fixture
async def served(redis: Redis, valkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url, public_url="https://shop.example") as front:
        yield front


async def test_whoever_has_this_version_is_not_sent_it_again(served: Served) -> None:
    for path in ("/openapi.json", "/docs"):
        first = await served.get(path)
        assert first.status == 200
        tag = first.headers["ETag"]
        again = await served.get(path, if_none_match=f'"other", {tag}')
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        assert (await served.get(path, if_none_match='"other"')).body == first.body


async def test_the_document_is_that_of_this_server_and_made_when_asked_for(served: Served) -> None:
    made = served.server.app[CONTRACT]._made
    assert made == {}
    reply = await served.get("/openapi.json")
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.json["servers"] == [{"url": "https://shop.example"}]
    assert reply.json == json.loads(json.dumps(served.server.app[CONTRACT].document()))
    first = made["document"]
    plain = await served.get("/openapi.json", accept_encoding="identity")
    assert made == {"document": first}
    assert plain.json == reply.json
    assert "Content-Encoding" not in plain.headers


async def test_a_browser_runs_what_is_on_the_page_and_nothing_else(served: Served) -> None:
    reply = await served.get("/docs")
    text = reply.body.decode()
    policy = reply.headers["Content-Security-Policy"]
    for element in ("style", "script"):
        (inside,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r'\son\w+="|\sstyle="|javascript:', text)
    assert reply.headers["Content-Type"].startswith("text/html")


async def test_the_page_is_searched_without_a_script_too(served: Served) -> None:
    found = (await served.get("/docs?q=reserve+units")).body.decode()
    assert 'id="postSalesBySaleReservations"' in found
    assert 'id="getHealthz"' not in found
    nothing = (await served.get("/docs?q=%3Cscript%3Ealert(1)%3C/script%3E")).body.decode()
    assert "<script>alert" not in nothing
    assert "No call has all of these words." in nothing


async def test_refusals_are_said_in_the_language_of_who_asks(served: Served) -> None:
    reply = await served.get("/v1/orders", accept_language="zh-CN,zh;q=0.9")
    assert (reply.status, reply.code) == (401, "unauthenticated")
    assert reply.json["title"] == "需要有效的访问令牌"
    assert reply.headers["Content-Language"] == "zh-CN"
    assert "Accept-Language" in reply.headers["Vary"]
    nowhere = await served.get("/nowhere", accept_language="zh")
    assert (nowhere.code, nowhere.json["title"]) == ("not_found", "没有找到")
    unfit = await served.get("/v1/orders?limit=0", user="ada", accept_language="zh")
    assert unfit.code == "invalid_request"
    assert "limit" in unfit.json["detail"]
    english = await served.get("/v1/orders", accept_language="en")
    assert "Content-Language" not in english.headers
