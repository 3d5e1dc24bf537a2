"""Sessions: refresh tokens that rotate, a thief who is noticed, logging out here and everywhere."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from api.users.accounts import Accounts
from api.users.revocations import Revocations
from api.users.sessions import SESSIONS_MAX, Sessions
from api.users.store import Users
from engine.clock import ManualClock, SystemClock
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.accounts import forget_everybody, serve_all
from tests.support.front import SECRET, Reply, Served
from tests.support.users import PASSWORD, register
from tests.support.waiting import until

LI = {"email": "li@example.com", "password": PASSWORD}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Served]:
    async with serve_all(valkey, postgres, anonymous_burst=1000, account_burst=1000) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def served(engine: Served) -> Served:
    await forget_everybody(engine)
    await register(engine.engine.pool, LI["email"])
    return engine


async def log_in(served: Served, **headers: str) -> Any:
    reply = await served.post("/v1/sessions", body=LI, **headers)
    assert reply.status == 201, reply.body
    return reply.json


async def refresh(served: Served, token: str) -> Reply:
    return await served.post("/v1/sessions/refresh", body={"refresh_token": token})


def bearer(session: Any) -> str:
    return f"Bearer {session['token']}"


async def is_known(served: Served, session: Any) -> bool:
    return (await served.get("/v1/users/me", authorization=bearer(session))).status == 200


async def test_a_session_goes_on_with_a_fresh_token_each_time(served: Served) -> None:
    first = await log_in(served)
    second = (await refresh(served, first["refresh_token"])).json
    third = (await refresh(served, second["refresh_token"])).json
    assert len({first["refresh_token"], second["refresh_token"], third["refresh_token"]}) == 3
    assert third["session_id"] == first["session_id"]
    assert third["user"] == first["user"]
    assert await is_known(served, third)
    kept = await served.engine.pool.fetch("SELECT * FROM sessions")
    assert third["refresh_token"].partition(".")[2] not in str(kept)


async def test_a_refresh_whose_answer_was_lost_is_repeated_with_the_same_result(
    served: Served,
) -> None:
    first = await log_in(served)
    once, again = await asyncio.gather(*(refresh(served, first["refresh_token"]) for _ in "12"))
    assert once.status == again.status == 200
    assert once.json["refresh_token"] == again.json["refresh_token"]
    assert (await refresh(served, again.json["refresh_token"])).status == 200


async def test_a_token_of_an_earlier_rotation_ends_the_session_for_thief_and_owner(
    served: Served,
) -> None:
    first = await log_in(served)
    other = await log_in(served)
    second = (await refresh(served, first["refresh_token"])).json
    third = (await refresh(served, second["refresh_token"])).json
    stolen = await refresh(served, first["refresh_token"])
    assert (stolen.status, stolen.code) == (401, "unauthenticated")
    assert (await refresh(served, third["refresh_token"])).status == 401
    assert not await is_known(served, third)  # The thief may have had an access token, too.
    assert (await refresh(served, other["refresh_token"])).status == 200


async def test_a_late_retry_is_a_theft(served: Served) -> None:
    first = await log_in(served)
    second = (await refresh(served, first["refresh_token"])).json
    await served.engine.pool.execute("UPDATE sessions SET rotated_at = now() - interval '11 s'")
    assert (await refresh(served, first["refresh_token"])).status == 401
    assert (await refresh(served, second["refresh_token"])).status == 401


async def test_a_session_that_was_not_used_for_long_is_over_as_is_none_at_all(
    served: Served,
) -> None:
    for token in ("x", "ses_nobody.x", ".", "ses", "." * 128):
        assert (await refresh(served, token)).code == "unauthenticated", token
    session = await log_in(served)
    await served.engine.pool.execute("UPDATE sessions SET expires_at = now()")
    assert (await refresh(served, session["refresh_token"])).code == "unauthenticated"


async def test_one_sees_where_one_is_logged_in_and_ends_what_one_does_not_know(
    served: Served,
) -> None:
    mine = await log_in(served, user_agent="phone")
    foreign = await log_in(served, user_agent="somebody's")
    found = (await served.get("/v1/sessions", authorization=bearer(mine))).json["sessions"]
    assert {session["user_agent"] for session in found} == {"phone", "somebody's"}
    path = f"/v1/sessions/{foreign['session_id']}"
    assert (await served.call("DELETE", path, user="another")).code == "not_found"
    assert (await served.call("DELETE", path, authorization=bearer(mine))).status == 204
    assert (await refresh(served, foreign["refresh_token"])).status == 401
    assert (await refresh(served, mine["refresh_token"])).status == 200


async def test_logging_out_ends_the_session_whose_refresh_token_is_told(served: Served) -> None:
    mine, other = await log_in(served), await log_in(served)
    body = {"refresh_token": mine["refresh_token"]}
    path = "/v1/sessions/current"
    vague = await served.call("DELETE", path, authorization=bearer(mine))
    assert vague.json["errors"][0]["field"] == "refresh_token"
    assert (await served.call("DELETE", path, body=body, authorization=bearer(mine))).status == 204
    assert (await refresh(served, mine["refresh_token"])).status == 401
    assert (await refresh(served, other["refresh_token"])).status == 200


async def test_logging_out_everywhere_ends_access_tokens_at_every_door_within_a_second(
    served: Served,
) -> None:
    await served.sell(stock={"phone-black": 5}, per_user_max=5)
    session = await log_in(served)
    reserve = "/v1/sales/demo/reservations"
    items = {"items": [{"sku": "phone-black", "quantity": 1}]}

    async def buy(key: str) -> int:
        headers = {"authorization": bearer(session), "idempotency_key": key}
        return (await served.post(reserve, body=items, **headers)).status

    assert [await buy("a"), await buy("b")] == [201, 201]  # By the gate, which remembers the token.
    assert (
        await served.call("DELETE", "/v1/sessions", authorization=bearer(session))
    ).status == 204
    assert not await is_known(served, session)
    assert await buy("c") == 401
    assert (await refresh(served, session["refresh_token"])).status == 401
    fresh = await log_in(served)  # At once, in the same second.
    assert await is_known(served, fresh)


async def test_what_one_front_ends_the_others_learn(served: Served) -> None:
    session = await log_in(served)
    user_id = session["user"]["user_id"]
    elsewhere = Revocations(served.engine.pool, SystemClock(), seconds=3600)
    await elsewhere.refresh_once()
    assert not elsewhere.concerns(user_id)
    await served.engine.pool.execute(  # Another front's work.
        "UPDATE users SET tokens_from = extract(epoch FROM now())::bigint + 1"
    )
    await elsewhere.refresh_once()
    assert elsewhere.is_revoked(user_id, served.engine.clock.now_ms() // 1000)

    async def is_out() -> bool:
        return not await is_known(served, session)

    await until(is_out, "this front follows")


async def test_a_token_given_in_the_second_of_a_logout_is_void_after_the_next_one(
    served: Served,
) -> None:
    """Both within one second: a thief who logs out everywhere all the time is blocked all the same."""
    engine, clock = served.engine, ManualClock()
    accounts = Accounts(engine.pool, clock, engine.ids, None)
    sessions = Sessions(engine.pool, clock, engine.ids, SECRET, 3600)
    user = await Users(engine.pool).by_email(LI["email"])
    assert user is not None
    first = await accounts.log_out_everywhere(user.user_id)
    opened = await sessions.open(user, by_cookie=False, user_agent="")
    assert opened is not None
    assert opened.issued_at == first
    ended = await accounts.administer("op-1", user.user_id, role=None, blocked=True)
    assert ended is not None
    assert ended.tokens_from > opened.issued_at


async def test_storefronts_own_users_have_no_sessions_here(served: Served) -> None:
    assert (await served.get("/v1/sessions", user="shop:77")).json == {"sessions": []}
    assert (await served.call("DELETE", "/v1/sessions", user="shop:77")).code == "not_found"


async def test_a_user_has_so_many_sessions_and_the_idlest_gives_way(served: Served) -> None:
    first = await log_in(served)
    await served.engine.pool.execute(
        "INSERT INTO sessions SELECT session_id || n, user_id, refresh_hash, previous_hash,"
        " rotated_at, by_cookie, user_agent, created_at, used_at + interval '1 s', expires_at"
        " FROM sessions, generate_series(1, $1) n",
        SESSIONS_MAX - 1,
    )
    newest = await log_in(served)
    found = (await served.get("/v1/sessions", authorization=bearer(newest))).json["sessions"]
    assert len(found) == SESSIONS_MAX
    assert first["session_id"] not in {session["session_id"] for session in found}
