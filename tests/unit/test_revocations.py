"""Void tokens are known from memory: followed, kept while Postgres is away, forgotten when over."""

import pytest

from api.users.revocations import ALL_SECONDS, LATE_SECONDS, Revocations
from engine.clock import ManualClock
from engine.errors import StoreUnavailable


class Table:
    """What a pool says of users whose tokens were voided."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.away = False

    async def fetch(self, _: str, since: int, rows_max: int) -> list[tuple[str, int]]:
        if self.away:
            raise OSError("no such host")
        return [(user, first) for user, first in self.rows.items() if first > since][:rows_max]


class Stand:
    """A copy of the table, an hour's tokens, and how often a listener was told."""

    def __init__(self) -> None:
        self.clock, self.table, self.told = ManualClock(), Table(), 0
        self.copy = Revocations(self.table, self.clock, seconds=3600)
        self.copy.tell(self.hear)

    def hear(self) -> None:
        self.told += 1

    @property
    def now_s(self) -> int:
        return self.clock.now_ms() // 1000

    def void(self, user_id: str, *, seconds_ago: int = 0) -> None:
        self.table.rows[user_id] = self.now_s - seconds_ago + 1


@pytest.fixture
def stand() -> Stand:
    return Stand()


async def test_only_what_was_given_before_is_void_and_only_news_is_told(stand: Stand) -> None:
    stand.void("u1")
    await stand.copy.refresh_once()
    await stand.copy.refresh_once()
    assert stand.told == 1
    assert stand.copy.is_revoked("u1", stand.now_s)
    assert not stand.copy.is_revoked("u1", stand.now_s + 1)
    assert not stand.copy.is_revoked("u2", 0)


async def test_what_this_process_did_counts_before_it_is_read(stand: Stand) -> None:
    stand.copy.note("u1", stand.now_s + 1)
    assert stand.copy.is_revoked("u1", stand.now_s)
    stand.copy.note("u1", 5)  # Never backwards.
    assert stand.copy.is_revoked("u1", stand.now_s)
    assert stand.told == 1


async def test_the_last_copy_holds_while_postgres_is_away_and_nothing_is_missed(
    stand: Stand,
) -> None:
    stand.void("u1")
    await stand.copy.refresh_once()
    stand.table.away = True
    stand.clock.advance(seconds=ALL_SECONDS - 10)
    with pytest.raises(StoreUnavailable):
        await stand.copy.refresh_once()
    assert stand.copy.is_revoked("u1", stand.now_s - ALL_SECONDS)
    stand.void("u2", seconds_ago=200)  # By another front, while this one could not look.
    stand.table.away = False
    await stand.copy.refresh_once()
    assert stand.copy.concerns("u2")


async def test_a_transaction_that_ends_late_is_seen(stand: Stand) -> None:
    await stand.copy.refresh_once()
    stand.clock.advance(seconds=LATE_SECONDS / 2)
    await stand.copy.refresh_once()
    stand.void("u1", seconds_ago=LATE_SECONDS // 2)
    await stand.copy.refresh_once()
    assert stand.copy.concerns("u1")


async def test_a_revocation_is_forgotten_when_every_token_it_meant_has_expired(
    stand: Stand,
) -> None:
    stand.void("u1")
    await stand.copy.refresh_once()
    stand.clock.advance(seconds=3600 + 2)
    await stand.copy.refresh_once()
    assert not stand.copy.concerns("u1")
