"""Requests that could be read in two ways: refused, closed, and nothing behind them is executed."""

import re

from tests.gate.calls import reserve_call
from tests.gate.smuggling import BODY, CORPUS, LENGTH, Odd, head
from tests.support.front import Served


async def reservations(served: Served, user: str) -> int:
    return len(await served.engine.inventory.reservations("demo", user))


def statuses(said: bytes) -> list[int]:
    """aiohttp refuses in HTTP/1.0, which ends the connection by itself."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", said)]


async def test_what_could_be_read_in_two_ways_is_refused_with_all_that_follows(
    served: Served,
) -> None:
    wrong: list[str] = []
    for number, odd in enumerate(CORPUS):
        if odd.status == 400:
            wrong += await wrongs(served, odd, f"u{number}")
    assert not wrong, "\n".join(wrong)


async def wrongs(served: Served, odd: Odd, user: str) -> list[str]:
    token = served.tokens.issue(user).encode()
    requests_before = sum(served.front.counts.requests.values())
    async with await served.raw() as connection:
        connection.send(odd.data.replace(b"%(token)b", token))
        connection.send(reserve_call(served, user=user, key="behind"))
        said = await connection.rest()
    found = []
    if statuses(said) != [400]:
        found.append(f"{odd.name}: {said!r}")
    if sum(served.front.counts.requests.values()) != requests_before:
        found.append(f"{odd.name}: a request was counted")
    if await reservations(served, user):
        found.append(f"{odd.name}: something was reserved")
    return found


async def test_what_may_be_answered_is_answered_and_so_is_what_follows(served: Served) -> None:
    for number, odd in enumerate(CORPUS):
        if not odd.why:
            continue
        user = f"u{number}"
        token = served.tokens.issue(user).encode()
        async with await served.raw() as connection:
            connection.send(odd.data.replace(b"%(token)b", token))
            connection.send(reserve_call(served, user=user, key="behind"))
            answers = [await connection.answer() for _ in range(2)]
        assert [int(answer[9:12]) for answer in answers] == [odd.status, 201], odd.name
        assert await reservations(served, user) == odd.reserves, odd.name


async def test_a_body_longer_than_its_length_is_the_next_request_and_no_part_of_this(
    served: Served,
) -> None:
    said = await closed_after(served, head(LENGTH) + BODY + b"smuggled")
    assert statuses(said) == [201, 400]
    assert await reservations(served, "u1") == 1


async def test_a_body_shorter_than_its_length_takes_what_follows_into_itself(
    served: Served,
) -> None:
    behind = reserve_call(served, key="behind")
    length = b"Content-Length: %d\r\n" % (len(BODY) + len(behind))
    async with await served.raw() as connection:
        token = served.tokens.issue("u1").encode()
        connection.send((head(length) + BODY).replace(b"%(token)b", token) + behind)
        assert int((await connection.answer())[9:12]) == 400, "that body is no JSON"
    assert await reservations(served, "u1") == 0


async def test_an_absolute_target_names_the_same_call(served: Served) -> None:
    """RFC 9112 §3.2.2: a server must accept the absolute form."""
    line = b"POST http://x/v1/sales/demo/reservations HTTP/1.1\r\n"
    token = served.tokens.issue("u1").encode()
    async with await served.raw() as connection:
        connection.send((head(LENGTH, line=line) + BODY).replace(b"%(token)b", token))
        assert int((await connection.answer())[9:12]) == 201
    assert await reservations(served, "u1") == 1


async def closed_after(served: Served, data: bytes) -> bytes:
    token = served.tokens.issue("u1").encode()
    async with await served.raw() as connection:
        connection.send(data.replace(b"%(token)b", token))
        connection.send(reserve_call(served, key="behind"))
        return await connection.rest()
