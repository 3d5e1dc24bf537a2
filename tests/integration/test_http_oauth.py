"""Logging in with another provider, against one that signs real tokens, and bends them when told to."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from joserfc import jwt

from api.oauth.provider import Oidc
from api.users.links import LinkSender
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.accounts import forget_everybody, serve_all
from tests.support.front import Reply, Served
from tests.support.mailbox import newest_mail
from tests.support.oidc import CLIENT_ID, CLIENT_SECRET, ProviderStand, oidc_provider

LOGIN = "/v1/oauth/acme/login"
JANE = "jane@example.com"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def stand() -> AsyncIterator[ProviderStand]:
    async with oidc_provider() as stand:
        yield stand


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Served]:
    async with serve_all(
        valkey,
        postgres,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        oidc_name="acme",
        public_url="https://shop.example",
        anonymous_burst=1000,
    ) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def served(
    engine: Served, stand: ProviderStand, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """Each test has a provider of its own, which nobody has asked for anything yet."""
    await forget_everybody(engine)
    settings = msgspec.structs.replace(engine.engine.settings, oidc_issuer=stand.issuer)
    oidc = Oidc.of(settings, engine.engine.clock)
    monkeypatch.setattr(engine.front, "oidc", oidc)
    yield engine
    await oidc.close()


def cookies_of(reply: Reply) -> dict[str, str]:
    """What a browser keeps of an answer; what is set to nothing is gone."""
    lines = reply.headers.getall("Set-Cookie", [])  # type: ignore[attr-defined]
    pairs = (line.partition(";")[0].partition("=") for line in lines)
    return {name: value for name, _, value in pairs if value}


async def go(served: Served, path: str, **headers: str) -> Reply:
    """A visit that follows no redirect."""
    named = {name.title(): value for name, value in headers.items()}
    url = served.url + path
    async with served.session.get(url, headers=named, allow_redirects=False) as got:
        return Reply(got.status, got.headers, await got.read())


async def log_in(served: Served, stand: ProviderStand, query: str = "") -> Reply:
    """There and back again."""
    gone = await go(served, f"{LOGIN}{query}")
    assert gone.status == 302, gone.body
    back = stand.authorize(gone.headers["Location"])
    jar = cookies_of(gone)
    return await go(served, back, cookie=f"__Host-login={jar['__Host-login']}")


async def me(served: Served, reply: Reply) -> Any:
    session = cookies_of(reply)["__Host-session"]
    return (await go(served, "/v1/users/me", cookie=f"__Host-session={session}")).json


async def test_a_person_comes_back_logged_in_where_he_wanted_to_go(
    served: Served, stand: ProviderStand
) -> None:
    first = await log_in(served, stand, "?return_to=/cart%3Fstep=2")
    assert (first.status, first.headers["Location"]) == (302, "/cart?step=2")
    lines = first.headers.getall("Set-Cookie")  # type: ignore[attr-defined]
    for line in lines:
        assert line.startswith("__Host-")
        assert {"Path=/", "Secure", "HttpOnly"} <= set(line.split("; "))
    shown = await me(served, first)
    assert (shown["email"], shown["name"], shown["email_verified"]) == (JANE, "Jane Doe", True)
    assert shown["local_login"] is False
    again = await log_in(served, stand)
    assert (await me(served, again))["user_id"] == shown["user_id"]
    assert stand.asked.count("discovery") == stand.asked.count("keys") == 1


async def test_a_program_gets_tokens_in_place_of_cookies(
    served: Served, stand: ProviderStand
) -> None:
    reply = await log_in(served, stand, "?answer=tokens")
    assert reply.status == 200
    assert cookies_of(reply) == {}
    token = reply.json["token"]
    assert (await served.get("/v1/users/me", authorization=f"Bearer {token}")).json["email"] == JANE


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def by_hand(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """What no library would sign."""
    return ".".join(b64(json.dumps(part).encode()) for part in (header, claims))


def unsigned(claims: dict[str, Any]) -> str:
    return by_hand({"alg": "none"}, claims) + "."


def confused(stand: ProviderStand, claims: dict[str, Any]) -> str:
    """HS256 under the public key, which everybody knows."""
    signed = by_hand({"alg": "HS256", "kid": stand.key.kid}, claims)
    mac = hmac.digest(stand.key.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{b64(mac)}"


async def test_no_token_that_is_wrong_in_any_way_lets_anybody_in(
    served: Served, stand: ProviderStand
) -> None:
    now = int(time.time())
    for bend in (
        {"iss": "https://elsewhere.example"},
        {"aud": "another client"},
        {"aud": [CLIENT_ID, "another client"]},  # For two, and azp does not say for whom.
        {"azp": "another client"},
        {"exp": now - 3600},
        {"exp": None},
        {"iat": now + 3600},
        {"iat": now - 86_400},
        {"nonce": "another login's"},
        {"nonce": None},
        {"at_hash": "of another access token"},
        {"sub": ""},
        {"sub": None},
    ):
        stand.bend = bend
        reply = await log_in(served, stand)
        assert (reply.status, reply.code) == (403, "login_refused"), bend
        assert cookies_of(reply) == {}
    stand.bend = {}
    forged = stand.published[0]
    stand.rotate()
    stand.published = [forged]  # Signed with a key that is not the provider's …
    signs = {
        "unknown key": None,
        "none": unsigned,
        "confusion": lambda claims: confused(stand, claims),
        "borrowed kid": lambda claims: jwt.encode(
            {"alg": "RS256", "kid": forged.kid}, claims, stand.key, algorithms=["RS256"]
        ),
        "garbage": lambda _: "a.b.c",
    }
    for name, sign in signs.items():
        stand.sign = sign
        assert (await log_in(served, stand)).code == "login_refused", name
    assert await served.engine.pool.fetchval("SELECT count(*) FROM users") == 0


@pytest.mark.parametrize("ec", [False, True], ids=["RS256", "ES256"])
async def test_a_key_the_provider_changed_is_fetched_once(
    served: Served, stand: ProviderStand, ec: bool
) -> None:
    assert (await log_in(served, stand)).status == 302
    stand.rotate(ec=ec)
    assert (
        await log_in(served, stand)
    ).code == "login_refused"  # Just looked: not at anyone's wish.
    provider = served.front.oidc.provider
    assert provider is not None
    provider._keys_read_at = None  # As ten seconds later.
    assert (await log_in(served, stand)).status == 302
    assert stand.asked.count("keys") == 2


async def test_who_logs_in_while_the_keys_are_fetched_waits_for_them(
    served: Served, stand: ProviderStand
) -> None:
    stand.keys_wait_for = 3  # The keys are told when as many have their token.
    replies = await asyncio.gather(*(log_in(served, stand) for _ in range(3)))
    assert [reply.status for reply in replies] == [302] * 3
    assert stand.asked.count("keys") == 1


async def test_only_the_browser_that_began_a_login_ends_it_and_only_once(
    served: Served, stand: ProviderStand
) -> None:
    gone = await go(served, LOGIN)
    mine = f"__Host-login={cookies_of(gone)['__Host-login']}"
    others = f"__Host-login={cookies_of(await go(served, LOGIN))['__Host-login']}"
    back = stand.authorize(gone.headers["Location"])
    for path, jar in (
        (back, {}),
        (back, {"cookie": others}),
        (back.replace("state=", "state=x"), {"cookie": mine}),
        ("/v1/oauth/acme/callback?code=x", {"cookie": mine}),
    ):
        assert (await go(served, path, **jar)).code == "login_refused"
    assert (await go(served, back, cookie=mine)).status == 302
    assert (await go(served, back, cookie=mine)).code == "login_refused"  # Replayed.


async def test_the_issuer_must_be_named_where_it_says_it_is_and_be_the_right_one(
    served: Served, stand: ProviderStand
) -> None:
    gone = await go(served, LOGIN)
    back = stand.authorize(gone.headers["Location"]) + "&iss=https://elsewhere.example"
    jar = {"cookie": f"__Host-login={cookies_of(gone)['__Host-login']}"}
    assert (await go(served, back, **jar)).code == "login_refused"
    stand.sends_iss = True
    served.front.oidc.provider._discovery = None  # type: ignore[union-attr]
    assert (await log_in(served, stand)).status == 302


@pytest.mark.parametrize(
    "place",
    ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "/a%0d%0ab", "/\\/x"],
)
async def test_nobody_is_sent_on_to_another_site(
    served: Served, stand: ProviderStand, place: str
) -> None:
    reply = await go(served, f"{LOGIN}?return_to={place}")
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert reply.json["errors"][0]["field"] == "return_to"


async def test_an_account_whose_email_both_sides_proved_is_the_same_persons(
    served: Served, stand: ProviderStand
) -> None:
    body = {"email": JANE, "password": "correct horse"}
    user_id = (await served.post("/v1/users", body=body)).json["user_id"]
    await served.engine.pool.execute("UPDATE users SET email_verified_at = now()")
    assert (await me(served, await log_in(served, stand)))["user_id"] == user_id
    assert (await served.post("/v1/sessions", body=body)).status == 201  # The password stays.


async def test_an_account_nobody_proved_loses_its_password_and_all_that_was_left_in_it(
    served: Served, stand: ProviderStand
) -> None:
    body = {"email": JANE, "password": "the squatter's"}
    user_id = (await served.post("/v1/users", body=body)).json["user_id"]
    await served.engine.pool.execute("UPDATE users SET name = 'Win a phone!'")
    squatter = (await served.post("/v1/sessions", body=body)).json
    bearer = f"Bearer {squatter['token']}"
    address = {"name": "S", "phone": "123", "country": "CN", "city": "C", "street": "S"}
    await served.post("/v1/addresses", body=address, authorization=bearer)
    reply = await log_in(served, stand)
    shown = await me(served, reply)
    assert (shown["user_id"], shown["name"]) == (user_id, "Jane Doe")
    assert (await served.post("/v1/sessions", body=body)).code == "wrong_credentials"
    token = {"refresh_token": squatter["refresh_token"]}
    assert (await served.post("/v1/sessions/refresh", body=token)).status == 401
    assert (await served.get("/v1/users/me", authorization=bearer)).status == 401
    left = await served.engine.pool.fetchval(
        "SELECT (SELECT count(*) FROM addresses) + (SELECT count(*) FROM user_links)"
    )
    assert left == 0


async def test_who_took_anothers_email_by_a_login_elsewhere_is_out_once_its_owner_proves_it(
    served: Served, stand: ProviderStand
) -> None:
    stand.person["email_verified"] = False
    squatted = (await me(served, await log_in(served, stand)))["user_id"]
    await served.post("/v1/passwords/reset", body={"email": JANE})
    await LinkSender(served.engine.pool, served.engine.clock, None).send_once()
    token = (await newest_mail(served.engine.pool, "reset", JANE))["token"]
    body = {"email": JANE, "password": "the owner's own"}
    await served.post("/v1/passwords", body={"token": token, "password": body["password"]})
    assert (await served.post("/v1/sessions", body=body)).json["user"]["user_id"] == squatted
    assert (await log_in(served, stand)).code == "email_taken"


async def test_an_email_the_provider_did_not_verify_opens_no_account_of_ours(
    served: Served, stand: ProviderStand
) -> None:
    body = {"email": JANE, "password": "correct horse"}
    await served.post("/v1/users", body=body)
    stand.person["email_verified"] = False
    assert (await log_in(served, stand)).code == "email_taken"
    stand.person["email"] = None
    nameless = await me(served, await log_in(served, stand))
    assert "email" not in nameless


async def test_whoever_is_blocked_here_stays_out_whatever_the_provider_says(
    served: Served, stand: ProviderStand
) -> None:
    await log_in(served, stand)
    await served.engine.pool.execute("UPDATE users SET blocked_at = now()")
    assert (await log_in(served, stand)).code == "account_blocked"


async def test_a_provider_that_is_away_is_told_and_one_there_is_not_is_not_found(
    served: Served, stand: ProviderStand
) -> None:
    stand.down = True
    reply = await go(served, LOGIN)
    assert (reply.status, reply.code) == (503, "unavailable")
    assert (await go(served, "/v1/oauth/other/login")).code == "not_found"
