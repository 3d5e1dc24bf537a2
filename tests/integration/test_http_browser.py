"""Browsers: sessions in cookies no script reads, and calls that other sites cannot forge."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.accounts import forget_everybody, serve_all
from tests.support.front import Reply, Served
from tests.support.users import PASSWORD, register

LI = {"email": "li@example.com", "password": PASSWORD}
PUBLIC = "https://shop.example"


@dataclass
class Page:
    """A browser at our own pages: keeps cookies, sends them along."""

    served: Served
    jar: dict[str, str] = field(default_factory=dict)
    csrf_token: str = ""

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        headers = {"cookie": cookies} if cookies else {}
        reply = await self.served.call(method, path, **{**headers, **options})
        for line in reply.headers.getall("Set-Cookie", []):  # type: ignore[attr-defined]
            name, _, value = line.partition(";")[0].partition("=")
            self.jar[name] = value
            if "Max-Age=0" in line:
                del self.jar[name]
        return reply

    async def act(self, method: str, path: str, **options: Any) -> Reply:
        """A call as our own page makes it."""
        return await self.call(method, path, x_csrf_token=self.csrf_token, **options)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Served]:
    async with serve_all(valkey, postgres, public_url=PUBLIC, anonymous_burst=1000) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def served(engine: Served) -> Served:
    await forget_everybody(engine)
    await register(engine.engine.pool, LI["email"])
    return engine


@pytest_asyncio.fixture(loop_scope="module")
async def page(served: Served) -> Page:
    page = Page(served)
    reply = await page.call("POST", "/v1/sessions", body=LI | {"cookie": True})
    assert reply.status == 201, reply.body
    page.csrf_token = reply.json["csrf_token"]
    return page


async def test_a_browser_gets_cookies_that_only_this_host_sees_and_no_script(
    served: Served,
) -> None:
    reply = await served.post("/v1/sessions", body=LI | {"cookie": True})
    assert "token" not in reply.json
    assert "refresh_token" not in reply.json
    lines = reply.headers.getall("Set-Cookie")  # type: ignore[attr-defined]
    parts = {line.partition("=")[0]: set(line.split("; ")[1:]) for line in lines}
    assert parts == {
        "__Host-session": {"Max-Age=3600", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"},
        "__Host-refresh": {"Max-Age=2592000", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"},
    }
    assert reply.headers["Cache-Control"] == "no-store"


async def test_a_page_reads_freely_and_acts_with_its_token(page: Page) -> None:
    assert (await page.call("GET", "/v1/users/me")).json["email"] == LI["email"]
    current = (await page.call("GET", "/v1/sessions/current")).json
    assert current["csrf_token"] == page.csrf_token
    body = {"name": "Lǐ Léi"}
    assert (await page.act("PATCH", "/v1/users/me", body=body)).json["name"] == "Lǐ Léi"
    origins: tuple[dict[str, str], ...] = (
        {"sec_fetch_site": "same-origin"},
        {"origin": PUBLIC},
        {"sec_fetch_site": "same-site", "origin": PUBLIC},
        {"origin": f"http://{page.served.host}:{page.served.port}"},
    )
    for said in origins:
        assert (await page.act("PATCH", "/v1/users/me", body=body, **said)).status == 200, said


FORGED: tuple[dict[str, str], ...] = (
    {},
    {"x_csrf_token": ""},
    {"x_csrf_token": "x" * 43},
    {"x_csrf_token": "é"},
    {"sec_fetch_site": "cross-site", "x_csrf_token": "right"},
    {"origin": "https://evil.example", "x_csrf_token": "right"},
    {"origin": "null", "x_csrf_token": "right"},
    {"sec_fetch_site": "same-site", "x_csrf_token": "right"},  # A neighbour under our domain.
    {"sec_fetch_site": "same-site", "origin": "https://x.shop.example", "x_csrf_token": "right"},
    {"sec_fetch_site": "cross-site", "origin": PUBLIC, "x_csrf_token": "right"},
    {"sec_fetch_site": "same-origin"},  # Not enough for what changes something.
)


async def test_what_another_site_may_have_forged_changes_nothing(page: Page) -> None:
    for forged in FORGED:
        said = {n: page.csrf_token if text == "right" else text for n, text in forged.items()}
        for method, path in (("PATCH", "/v1/users/me"), ("DELETE", "/v1/sessions")):
            body = {"name": "Eve"} if method == "PATCH" else None
            reply = await page.call(method, path, body=body, **said)
            assert (reply.status, reply.code) == (403, "csrf_required"), (method, said)
    assert (await page.call("GET", "/v1/users/me")).json["name"] == "li"


async def test_another_sessions_token_is_no_token(page: Page, served: Served) -> None:
    other = await served.post("/v1/sessions", body=LI | {"cookie": True})
    token = other.json["csrf_token"]
    assert token != page.csrf_token
    reply = await page.call("PATCH", "/v1/users/me", body={"name": "Eve"}, x_csrf_token=token)
    assert reply.code == "csrf_required"


async def test_nobody_is_logged_in_as_another_from_another_site(served: Served) -> None:
    body = LI | {"cookie": True}
    for said in (
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": "https://x.shop.example"},
        {"origin": "null"},
    ):
        reply = await served.post("/v1/sessions", body=body, **said)
        assert reply.code == "csrf_required"


async def test_bytes_in_a_cookie_that_nobody_was_given_are_no_cookie(served: Served) -> None:
    for method, path in (("PATCH", "/v1/users/me"), ("POST", "/v1/sessions/refresh")):
        async with await served.raw() as client:
            client.send(
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nCookie: ".encode()
                + b"__Host-session=ses_\xff.x; __Host-refresh=ses_\xff.x\r\n\r\n"
            )
            assert (await client.answer()).split(b" ", 2)[1] in {b"400", b"401"}


async def test_a_page_that_was_closed_goes_on_by_its_refresh_cookie(page: Page) -> None:
    del page.jar["__Host-session"]  # Its hour is over.
    assert (await page.call("GET", "/v1/users/me")).status == 401
    assert (await page.call("POST", "/v1/sessions/refresh")).code == "csrf_required"
    cross = {"sec_fetch_site": "cross-site"}
    assert (await page.act("POST", "/v1/sessions/refresh", **cross)).code == "csrf_required"
    old = page.jar["__Host-refresh"]
    reply = await page.call("POST", "/v1/sessions/refresh", sec_fetch_site="same-origin")
    assert reply.json["csrf_token"] == page.csrf_token
    assert page.jar["__Host-refresh"] != old
    assert (await page.act("POST", "/v1/sessions/refresh")).status == 200
    assert (await page.call("GET", "/v1/users/me")).status == 200


async def test_logging_out_takes_the_cookies_and_the_session(page: Page) -> None:
    kept = dict(page.jar)
    assert (await page.act("DELETE", "/v1/sessions/current")).status == 204
    assert page.jar == {}
    page.jar = kept
    assert (await page.act("POST", "/v1/sessions/refresh")).status == 401


async def test_a_token_in_the_header_wins_and_needs_no_other(page: Page) -> None:
    reply = await page.call("PATCH", "/v1/users/me", body={"name": "x"}, user="shop:77")
    assert reply.code == "not_found"  # The storefront's user, not the cookie's.


async def test_a_browser_buys_through_the_gate_as_anyone(page: Page, served: Served) -> None:
    await served.sell(stock={"phone-black": 5}, per_user_max=5)
    path, body = "/v1/sales/demo/reservations", {"items": [{"sku": "phone-black", "quantity": 1}]}
    forged = await page.call("POST", path, body=body, idempotency_key="k")
    assert forged.code == "csrf_required"
    bought = await page.act("POST", path, body=body, idempotency_key="k")
    assert bought.status == 201, bought.body
    reservation = f"/v1/reservations/{bought.json['reservation_id']}"
    assert (await page.call("GET", reservation)).json["status"] == "reserved"
    assert (await page.call("GET", "/v1/sales/demo")).status == 200
    # Without a room, nobody has a place: but it is known who asks.
    assert (await page.call("GET", "/v1/sales/demo/queue")).status != 401
    assert (await page.act("POST", "/v1/sales/demo/queue")).status not in {401, 403}
    assert (await page.call("POST", "/v1/sales/demo/queue")).code == "csrf_required"
    assert (await page.act("DELETE", reservation)).json["status"] == "released"
    stranger = Page(served)
    assert (await stranger.call("GET", reservation)).code == "unauthenticated"


async def test_a_cookie_that_is_over_makes_a_guest_where_guests_may_look(page: Page) -> None:
    session_id = page.jar["__Host-session"].partition(".")[0]
    for cookie in ("garbage", f"{session_id}.a.b.c", ""):
        page.jar["__Host-session"] = cookie
        assert (await page.call("GET", "/v1/products")).status == 200
        assert (await page.call("GET", "/v1/users/me")).code == "unauthenticated"
