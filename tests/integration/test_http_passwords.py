"""Proving an e-mail, changing and resetting a password, leaving: what the mails bring about."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from argon2 import PasswordHasher

from api.users.accounts import Accounts
from api.users.links import LIVE_MAX, UNPROVEN_MAX, LinkSender
from api.users.sweeping import MAIL_SECONDS, Sweeper
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.accounts import forget_everybody, serve_all
from tests.support.front import Reply, Served
from tests.support.mailbox import count_mails, newest_mail
from tests.support.users import PASSWORD, register

LI = "li@example.com"
NEW = "battery staple"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Served]:
    async with serve_all(
        valkey,
        postgres,
        anonymous_burst=1000,
        account_burst=1000,
        storefront_url="https://shop.example/",
    ) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def served(engine: Served) -> Served:
    await forget_everybody(engine)
    return engine


async def log_in(served: Served, password: str = PASSWORD) -> Reply:
    return await served.post("/v1/sessions", body={"email": LI, "password": password})


async def answer_requests(served: Served) -> int:
    """As the worker does."""
    engine = served.engine
    return await LinkSender(engine.pool, engine.clock, "https://shop.example").send_once()


async def ask_for_reset(served: Served) -> Any:
    assert (await served.post("/v1/passwords/reset", body={"email": LI})).status == 202
    await answer_requests(served)
    return await newest_mail(served.engine.pool, "reset", LI)


async def reset(served: Served, token: str, password: str = NEW) -> Reply:
    return await served.post("/v1/passwords", body={"token": token, "password": password})


async def test_who_registers_gets_a_link_that_proves_the_mailbox_once(served: Served) -> None:
    body = {"email": LI, "password": PASSWORD}
    made = await served.post("/v1/users", body=body, accept_language="zh")
    assert (made.json["email_verified"], made.json["language"]) == (False, "zh-CN")
    mail = await newest_mail(served.engine.pool, "verify", LI)
    assert mail["name"] == ""  # Whoever registers another's mailbox does not write to it.
    assert mail["link"] == f"https://shop.example/verify?token={mail['token']}"
    kept = await served.engine.pool.fetchval("SELECT token_hash FROM user_links")
    assert mail["token"].encode() not in kept
    for token in ("x" * 43, mail["token"][:-1]):
        wrong = await served.post("/v1/users/verification", body={"token": token})
        assert (wrong.status, wrong.code) == (410, "link_invalid")
    proof = {"token": mail["token"]}
    assert (await served.post("/v1/users/verification", body=proof)).json["email_verified"]
    assert (await served.post("/v1/users/verification", body=proof)).code == "link_invalid"


async def test_nobody_learns_whether_an_email_is_known_here(served: Served) -> None:
    await register(served.engine.pool, LI, verified=False)
    for path in ("/v1/passwords/reset", "/v1/users/verification/mail"):
        known = await served.post(path, body={"email": LI}, x_request_id="the-same")
        unknown = await served.post(path, body={"email": "no@x.cn"}, x_request_id="the-same")
        assert (known.status, known.body) == (unknown.status, unknown.body) == (202, b"")
        assert known.headers.keys() == unknown.headers.keys()
    # The work was the same as well: one row each, which the worker looks up.
    assert await served.engine.pool.fetchval("SELECT count(*) FROM link_requests") == 4
    assert await count_mails(served.engine.pool, "reset") == 0
    assert await answer_requests(served) == 4
    assert await count_mails(served.engine.pool, "reset") == 1
    assert await count_mails(served.engine.pool, "verify") == 1


async def test_a_mailbox_with_good_links_in_it_gets_no_more(served: Served) -> None:
    pool = served.engine.pool
    await register(pool, LI)
    for _ in range(3):
        await served.post("/v1/passwords/reset", body={"email": LI})
    await answer_requests(served)
    assert await count_mails(pool, "reset") == 1
    for _ in range(LIVE_MAX + 2):  # A minute later, and again.
        await pool.execute("UPDATE user_links SET expires_at = expires_at - interval '61 s'")
        mail = await ask_for_reset(served)
    assert await count_mails(pool, "reset") == LIVE_MAX
    assert (await reset(served, mail["token"])).status == 204
    await ask_for_reset(served)
    assert await count_mails(pool, "reset") == LIVE_MAX + 1


async def test_anothers_mailbox_is_not_flooded_by_registering_it_again_and_again(
    served: Served,
) -> None:
    accounts = Accounts.of(served.engine)
    for _ in range(UNPROVEN_MAX + 2):
        await accounts.delete(await accounts.register(LI, "hash", "li", "en"))
    assert await count_mails(served.engine.pool, "verify") == UNPROVEN_MAX


async def test_a_password_is_reset_by_mail_and_every_session_ends(served: Served) -> None:
    await register(served.engine.pool, LI, verified=False)
    session = (await log_in(served)).json
    first, mail = await ask_for_reset(served), None
    await served.engine.pool.execute(
        "UPDATE user_links SET expires_at = expires_at - interval '1m'"
    )
    mail = await ask_for_reset(served)
    assert (await reset(served, mail["token"], "short")).code == "invalid_request"
    assert (await reset(served, mail["token"])).status == 204
    for used in (mail, first):  # Once, and its like are void with it.
        assert (await reset(served, used["token"])).code == "link_invalid"
    bearer = f"Bearer {session['token']}"
    assert (await served.get("/v1/users/me", authorization=bearer)).status == 401
    refresh = {"refresh_token": session["refresh_token"]}
    assert (await served.post("/v1/sessions/refresh", body=refresh)).status == 401
    assert (await log_in(served)).code == "wrong_credentials"
    fresh = await log_in(served, NEW)
    assert fresh.json["user"]["email_verified"] is True  # The link proved the mailbox, too.
    assert await count_mails(served.engine.pool, "password_changed") == 1


async def test_a_link_ends_with_its_time_and_is_swept_away(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(served.engine.pool, LI)
    mail = await ask_for_reset(served)
    await served.engine.pool.execute("UPDATE user_links SET expires_at = now()")
    with monkeypatch.context() as patched:  # Nothing is hashed for a link that is not good.
        patched.setattr(served.front, "passwords", None)
        assert (await reset(served, mail["token"])).code == "link_invalid"
    sweeper = Sweeper(served.engine.pool, served.engine.clock)
    assert await sweeper.sweep_once() == 1
    assert await served.engine.pool.fetchval("SELECT count(*) FROM user_links") == 0
    ended = f"state = 'sent', ended_at = now() - interval '{MAIL_SECONDS - 60} s'"
    await served.engine.pool.execute(f"UPDATE mails SET {ended}")
    assert await sweeper.sweep_once() == 0
    await served.engine.pool.execute("UPDATE mails SET ended_at = ended_at - interval '61 s'")
    assert await sweeper.sweep_once() == 1


async def test_a_password_is_changed_by_who_knows_the_present_one(served: Served) -> None:
    await register(served.engine.pool, LI)
    bearer = f"Bearer {(await log_in(served)).json['token']}"

    async def change(**body: str) -> Reply:
        return await served.call("PATCH", "/v1/users/me", body=body, authorization=bearer)

    assert (await change(name="Lǐ", language="zh-CN")).json["name"] == "Lǐ"
    assert (await change(password=NEW)).json["errors"][0]["field"] == "current_password"
    assert (await change(password=NEW, current_password="wrong")).code == "wrong_credentials"
    assert (await change(password=NEW, current_password=PASSWORD)).status == 200
    assert (await change(name="Eve")).status == 401  # All sessions are over.
    assert (await log_in(served, NEW)).status == 201
    assert (await newest_mail(served.engine.pool, "password_changed", LI))["name"] == "Lǐ"
    foreign = await served.call("PATCH", "/v1/users/me", user="shop:77", body={"name": "x"})
    assert foreign.code == "not_found"


async def test_a_password_hashed_in_an_older_way_is_hashed_anew_at_login(served: Served) -> None:
    await register(served.engine.pool, LI)
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await served.engine.pool.execute("UPDATE users SET password_hash = $1", old)
    assert (await log_in(served)).status == 201
    kept = await served.engine.pool.fetchval("SELECT password_hash FROM users")
    assert kept != old
    assert not served.front.passwords.is_outdated(kept)
    assert (await log_in(served)).status == 201


async def test_who_leaves_is_forgotten_and_may_come_back_as_another(served: Served) -> None:
    user_id = await register(served.engine.pool, LI)
    bearer = f"Bearer {(await log_in(served)).json['token']}"
    for body, code in (({}, "invalid_request"), ({"password": "wrong"}, "wrong_credentials")):
        reply = await served.call("DELETE", "/v1/users/me", body=body, authorization=bearer)
        assert reply.code == code
    reply = await served.call(
        "DELETE", "/v1/users/me", body={"password": PASSWORD}, authorization=bearer
    )
    assert reply.status == 204
    assert (await served.get("/v1/users/me", authorization=bearer)).status == 401
    assert (await log_in(served)).code == "wrong_credentials"
    row = await served.engine.pool.fetchrow("SELECT * FROM users")
    assert (row["user_id"], row["email"], row["password_hash"]) == (user_id, None, None)
    again = await served.post("/v1/users", body={"email": LI, "password": PASSWORD})
    assert again.json["user_id"] != user_id
