"""Operators and support on other people's accounts, over HTTP and from the command line."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from api.cli.user import app
from api.tokens import Role
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.accounts import forget_everybody, serve_all
from tests.support.front import SECRET, Reply, Served
from tests.support.users import PASSWORD, register

LI = "li@example.com"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Served]:
    async with serve_all(valkey, postgres, anonymous_burst=1000) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def served(engine: Served) -> Served:
    await forget_everybody(engine)
    return engine


async def log_in(served: Served) -> Reply:
    return await served.post("/v1/sessions", body={"email": LI, "password": PASSWORD})


async def change(served: Served, user_id: str, **body: object) -> Reply:
    path = f"/v1/admin/users/{user_id}"
    return await served.call("PATCH", path, body=body, user="op-1", role=Role.OPERATOR)


async def test_support_finds_users_by_their_email_page_by_page(served: Served) -> None:
    emails = [f"li{n}@example.com" for n in range(3)] + ["han_mei@example.com", "hanxmei@x.cn"]
    for email in emails:
        await register(served.engine.pool, email)

    async def find(query: str) -> Reply:
        return await served.get(f"/v1/admin/users?{query}", user="s-1", role=Role.SUPPORT)

    found, after = [], ""
    for _ in range(3):
        page = (await find(f"email=LI&limit=2{after}")).json
        found += [user["email"] for user in page["users"]]
        if "next" not in page:
            break
        after = f"&after={page['next']}"
    assert sorted(found) == emails[:3]
    literal = (await find("email=han_")).json["users"]  # An underscore is one.
    assert [user["email"] for user in literal] == ["han_mei@example.com"]
    one = await served.get(
        f"/v1/admin/users/{literal[0]['user_id']}", user="s-1", role=Role.SUPPORT
    )
    assert one.json == literal[0]
    assert "hash" not in one.body.decode()
    for query, field in (("limit=0", "limit"), ("role=buyer", "role")):
        assert (await find(query)).json["errors"][0]["field"] == field
    assert (await served.get("/v1/admin/users", user="u1")).code == "forbidden"


async def test_who_is_blocked_is_out_at_once_and_stays_out_until_unblocked(served: Served) -> None:
    user_id = await register(served.engine.pool, LI)
    session = (await log_in(served)).json
    assert (await change(served, user_id, blocked=True)).json["blocked_at"]
    bearer = f"Bearer {session['token']}"
    assert (await served.get("/v1/users/me", authorization=bearer)).status == 401
    refresh = {"refresh_token": session["refresh_token"]}
    assert (await served.post("/v1/sessions/refresh", body=refresh)).status == 401
    assert (await log_in(served)).code == "account_blocked"
    assert "blocked_at" not in (await change(served, user_id, blocked=False)).json
    assert (await log_in(served)).status == 201


async def test_a_role_holds_from_the_next_login_and_is_audited(served: Served) -> None:
    user_id = await register(served.engine.pool, LI)
    before = (await log_in(served)).json
    assert (await change(served, user_id, role="support")).json["role"] == "support"
    bearer = f"Bearer {before['token']}"
    assert (await served.get("/v1/users/me", authorization=bearer)).status == 401
    bearer = f"Bearer {(await log_in(served)).json['token']}"
    assert (await served.get("/v1/admin/users", authorization=bearer)).status == 200
    noted = "FROM audit_log WHERE detail ->> 'user_id' = $1"
    row = await served.engine.pool.fetchrow(f"SELECT * {noted}", user_id)
    assert (row["actor"], row["action"]) == ("op-1", "user_changed")
    assert row["detail"] == {"user_id": user_id, "role": "support", "blocked": False}
    await change(served, user_id, role="support")  # Nothing new: nothing ends, nothing is noted.
    assert (await served.get("/v1/users/me", authorization=bearer)).status == 200
    assert await served.engine.pool.fetchval(f"SELECT count(*) {noted}", user_id) == 1


async def test_no_operator_locks_himself_out_nor_does_support_make_operators(
    served: Served,
) -> None:
    assert (await change(served, "op-1", role="buyer")).code == "conflict"
    assert (await change(served, "usr_nobody", role="buyer")).code == "not_found"
    assert (await change(served, "usr_nobody", role="emperor")).code == "invalid_request"
    user_id = await register(served.engine.pool, LI)
    for role in (Role.SUPPORT, Role.BUYER):
        path = f"/v1/admin/users/{user_id}"
        reply = await served.call("PATCH", path, body={"role": "operator"}, user="s", role=role)
        assert reply.code == "forbidden"


async def test_the_first_operator_is_made_from_the_command_line(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id = await register(served.engine.pool, LI)
    settings = served.engine.settings
    monkeypatch.setenv("DOORBUSTER_REDIS_URL", str(settings.redis_url))
    monkeypatch.setenv("DOORBUSTER_POSTGRES_URL", str(settings.postgres_url))
    monkeypatch.setenv("DOORBUSTER_SECRET", SECRET)
    run = CliRunner().invoke
    done = await asyncio.to_thread(run, app, ["role", LI, "operator"])
    assert (done.exit_code, done.output) == (0, f"{LI} ({user_id}) is operator.\n")
    bearer = f"Bearer {(await log_in(served)).json['token']}"
    assert (await served.get("/v1/admin/audit", authorization=bearer)).status == 200
    failed = await asyncio.to_thread(run, app, ["block", "no@x.cn"])
    assert "Nobody is registered as no@x.cn." in str(failed.exception)


async def test_operators_see_which_mails_were_given_up_but_not_what_they_say(
    served: Served,
) -> None:
    pool = served.engine.pool
    for n in range(3):
        await served.post("/v1/users", body={"email": f"u{n}@example.com", "password": PASSWORD})
    await pool.execute("UPDATE mails SET state = 'failed', last_error = '550' WHERE mail_id > 1")

    async def find(query: str) -> Reply:
        return await served.get(f"/v1/admin/mails?{query}", user="s-1", role=Role.SUPPORT)

    page = await find("state=failed&limit=1")
    rest = await find(f"state=failed&limit=1&after={page.json['next']}")
    shown = [reply.json["mails"][0] for reply in (page, rest)]
    assert [(m["recipient"], m["last_error"]) for m in shown] == [
        ("u2@example.com", "550"),
        ("u1@example.com", "550"),
    ]
    token = await pool.fetchval("SELECT content ->> 'token' FROM mails LIMIT 1")
    assert token not in (await find("limit=200")).body.decode()
    assert (await served.operate("/mails/retries")).json == {"retried": 2}
    assert (await find("state=failed")).json == {"mails": []}
