"""Registering, logging in, and who one is."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from api.users.passwords import PasswordVault
from engine.admission.throttle import Throttles
from engine.errors import Overloaded
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.accounts import forget_everybody, serve_all
from tests.support.front import Reply, Served

LI = {"email": "li@example.com", "password": "correct horse", "name": "李雷"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Served]:
    async with serve_all(valkey, postgres, anonymous_burst=1000) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def served(engine: Served) -> Served:
    await forget_everybody(engine)
    return engine


async def log_in(served: Served, email: str, password: str) -> Reply:
    return await served.post("/v1/sessions", body={"email": email, "password": password})


async def test_a_buyer_registers_logs_in_and_is_known(served: Served) -> None:
    made = await served.post("/v1/users", body=LI)
    assert made.status == 201
    assert made.json["role"] == "buyer"
    assert "password" not in made.body.decode()
    session = await log_in(served, "LI@EXAMPLE.COM", LI["password"])
    assert session.status == 201
    me = await served.get("/v1/users/me", authorization=f"Bearer {session.json['token']}")
    assert me.json == made.json


async def test_a_name_may_be_left_out(served: Served) -> None:
    body = {"email": "han.meimei@example.com", "password": LI["password"]}
    assert (await served.post("/v1/users", body=body)).json["name"] == "han.meimei"


async def test_a_storefronts_own_users_are_known_by_their_tokens(served: Served) -> None:
    assert (await served.get("/v1/users/me", user="shop:77")).json == {
        "user_id": "shop:77",
        "role": "buyer",
    }
    assert (await served.get("/v1/users/me")).code == "unauthenticated"


async def test_an_email_is_registered_once_even_by_two_at_once(served: Served) -> None:
    capital = LI | {"email": "Li@Example.com"}
    replies = await asyncio.gather(*(served.post("/v1/users", body=b) for b in (LI, capital)))
    assert sorted(reply.status for reply in replies) == [201, 409]
    assert (await served.post("/v1/users", body=LI)).code == "email_taken"


async def test_a_wrong_password_and_an_unknown_user_look_alike(served: Served) -> None:
    await served.post("/v1/users", body=LI)
    wrong = await log_in(served, LI["email"], "wrong horse")
    unknown = await log_in(served, "nobody@example.com", "wrong horse")
    assert (wrong.status, wrong.code) == (401, "wrong_credentials")
    assert (unknown.status, unknown.body) == (wrong.status, wrong.body)


async def test_nobody_registers_as_an_operator_or_with_unfit_fields(served: Served) -> None:
    for change, field in (
        ({"role": "operator"}, "role"),
        ({"email": "no-at-sign"}, "email"),
        ({"email": "a@b\n"}, "email"),
        ({"email": "a@b,c@d"}, "email"),
        ({"email": "<a>@b"}, "email"),
        ({"email": "lı@example.com"}, "email"),
        ({"email": "a@" + "x" * 63 + ("." + "x" * 63) * 3}, "email"),
        ({"email": "x" * 300 + "@example.com"}, "email"),
        ({"email": 7}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 129}, "password"),
        ({"password": None}, "password"),
        ({"name": ""}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "x" * 101}, "name"),
    ):
        reply = await served.post("/v1/users", body=LI | change)
        assert (reply.status, reply.code) == (400, "invalid_request"), change
        assert reply.json["errors"][0]["field"] == field
    reply = await served.post("/v1/sessions", body={"email": "x", "password": "x" * 129})
    assert reply.code == "invalid_request"


async def test_one_address_is_throttled_before_any_hashing_at_the_rate_of_the_settings(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = served.engine.settings
    rate = msgspec.structs.replace(settings, anonymous_per_second=1, anonymous_burst=70)
    monkeypatch.setattr(served.front, "throttles", Throttles.of(rate, served.engine.clock))
    monkeypatch.setattr(served.front, "passwords", None)  # Whoever gets as far fails loudly.
    replies = [await served.post("/v1/sessions", data=b"{") for _ in range(70)]
    # At once: a refusal is held back for a moment, in which one after the other would find room again.
    more = await asyncio.gather(*(served.post("/v1/sessions", data=b"{") for _ in range(20)))
    assert {reply.code for reply in replies} == {"invalid_request"}
    assert (429, "throttled") in {(reply.status, reply.code) for reply in more}


async def test_only_so_many_wait_for_their_password_to_be_checked() -> None:
    vault = PasswordVault(threads=1, waiting_per_thread_max=4)
    checks = [vault.verify(None, "x") for _ in range(10)]
    results = await asyncio.gather(*checks, return_exceptions=True)
    vault.close()
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert results.count(False) == 4
    assert len(refused) == 6
