"""Operators' rules: the narrowest one counts, until it is over; each change is on record."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.admission import access
from engine.admission.access import AccessControl, AccessRules, Verdict, canonical_subject
from engine.admission.addresses import AddressReader
from engine.clock import ManualClock
from engine.config import Settings
from engine.errors import Conflict, Invalid, StoreUnavailable, UnknownSale
from engine.store.database import Pool, open_pool

ALLOW, DENY = Verdict.ALLOW, Verdict.DENY
HOST, NEIGHBOUR, FARTHER, STRANGER = "203.0.113.7", "203.0.113.8", "203.0.200.1", "198.51.100.1"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def control(pool: Pool, clock: ManualClock) -> AccessControl:
    return AccessControl(pool, clock)


@pytest.fixture
def rules(pool: Pool, clock: ManualClock) -> AccessRules:
    return AccessRules(pool, clock)


Add = Callable[..., Awaitable[Any]]


@pytest.fixture
def add(pool: Pool, control: AccessControl, rules: AccessRules) -> Add:
    """Makes a rule and reads all of them; sales `a` and `b` are there."""

    async def add(subject: str, verdict: Verdict, sale_id: str | None = None, **more: Any) -> None:
        await pool.execute(
            """
            INSERT INTO sales (sale_id, name, opens_at, closes_at, per_user_max,
                               reservation_seconds, auto_capture, state)
            SELECT sale_id, '{}', now(), now() + interval '1 day', 2, 900, false, 'open'
            FROM unnest(ARRAY['a', 'b']) AS sale_id ON CONFLICT DO NOTHING
            """
        )
        await control.add("olga", subject=subject, verdict=verdict, sale_id=sale_id, **more)
        await rules.refresh_once()

    return add


def in_an_hour(clock: ManualClock) -> datetime:
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC) + timedelta(hours=1)


async def audit(pool: Pool) -> list[tuple[Any, ...]]:
    rows = await pool.fetch(
        "SELECT actor, action, sale_id, detail FROM audit_log ORDER BY entry_id"
    )
    return [tuple(row) for row in rows]


async def test_without_rules_there_is_no_verdict(rules: AccessRules) -> None:
    assert await rules.refresh_once() == 0
    assert rules.is_empty
    for user_id in ("u1", "", None):
        assert rules.verdict(user_id, HOST, "a") is None
        assert rules.verdict(user_id, "", None) is None


async def test_a_user_is_kept_out_of_one_sale_or_of_all(add: Add, rules: AccessRules) -> None:
    await add("user:u1", DENY, "a")
    await add("user:u2", DENY)
    assert not rules.is_empty
    assert [rules.verdict("u1", HOST, sale) for sale in ("a", "b", None)] == [DENY, None, None]
    assert [rules.verdict("u2", HOST, sale) for sale in ("a", "b", None)] == [DENY] * 3
    assert rules.verdict("u3", HOST, "a") is None


async def test_the_narrowest_rule_counts(add: Add, rules: AccessRules) -> None:
    await add("address:0.0.0.0/0", DENY, "b")
    await add("address:203.0.0.0/16", DENY)
    await add("address:203.0.113.0/24", ALLOW)
    await add("address:203.0.113.7", DENY)
    await add("address:203.0.113.7", ALLOW, "a")
    await add("user:u1", ALLOW)
    await add("user:u1", DENY, "b")
    said = {
        (address, sale): rules.verdict("nobody", address, sale)
        for address in (HOST, NEIGHBOUR, FARTHER, STRANGER)
        for sale in ("a", "b")
    }
    assert said == {
        (HOST, "a"): ALLOW,
        (HOST, "b"): DENY,
        (NEIGHBOUR, "a"): ALLOW,
        (NEIGHBOUR, "b"): ALLOW,
        (FARTHER, "a"): DENY,
        (FARTHER, "b"): DENY,
        (STRANGER, "a"): None,
        (STRANGER, "b"): DENY,
    }
    assert rules.verdict("u1", HOST, None) == ALLOW
    assert rules.verdict("u1", FARTHER, "a") == ALLOW
    assert rules.verdict("u1", NEIGHBOUR, "b") == DENY


async def test_ipv6_rules_meet_the_names_that_visitors_go_by(add: Add, rules: AccessRules) -> None:
    await add("address:2001:db8::5", DENY)
    await add("address:2001:db8:ff00::/40", DENY, "a")
    await add("address:::1", DENY)
    reader = AddressReader.of(Settings())
    for peer, verdict in {
        "2001:db8::6": DENY,
        "2001:db8:0:1::5": None,
        "2001:db8:ff12:3::4": DENY,
        "2001:db9::1": None,
        "::1": DENY,
        "32.1.13.184": None,  # The same first bits, in IPv4.
    }.items():
        assert rules.verdict("u1", reader.client(peer, None, None), "a") == verdict, peer


async def test_a_rule_that_is_over_does_not_count_and_is_cleared_away(
    add: Add, rules: AccessRules, control: AccessControl, clock: ManualClock
) -> None:
    await add("user:u1", DENY, expires_at=in_an_hour(clock))
    await add("address:203.0.113.7", ALLOW, expires_at=in_an_hour(clock))
    await add("address:203.0.113.0/24", DENY)
    assert rules.verdict("u1", HOST, "a") == DENY
    assert rules.verdict("u2", HOST, "a") == ALLOW
    clock.advance(seconds=3600)
    assert rules.verdict("u1", STRANGER, "a") is None
    assert rules.verdict("u2", HOST, "a") == DENY
    assert [rule.subject for rule in await control.list()] == ["address:203.0.113.0/24"]
    await add("user:u3", DENY)
    assert rules.verdict("u3", HOST, "a") == DENY


async def test_a_new_rule_for_a_subject_replaces_the_old_one(
    add: Add, rules: AccessRules, control: AccessControl, pool: Pool
) -> None:
    await add("user:u1", DENY, reason="a bot")
    await add("user:u1", ALLOW, reason="a mistake")
    assert rules.verdict("u1", HOST, "a") == ALLOW
    [rule] = await control.list()
    assert (rule.verdict, rule.reason, rule.actor) == (ALLOW, "a mistake", "olga")
    made, replaced = await audit(pool)
    assert made == (
        "olga",
        "access_added",
        None,
        {
            "subject": "user:u1",
            "verdict": "deny",
            "reason": "a bot",
            "expires_at": None,
            "replaced": None,
        },
    )
    assert replaced[3] | {"replaced": "deny", "verdict": "allow"} == replaced[3]


async def test_a_removed_rule_is_gone_and_on_record(
    add: Add, rules: AccessRules, control: AccessControl, pool: Pool
) -> None:
    await add("address:203.0.113.7/32", DENY, "a")
    assert not await control.remove("otto", subject="address:203.0.113.7")
    assert await control.remove("otto", subject="address:203.0.113.7", sale_id="a")
    assert not await control.remove("otto", subject="address:203.0.113.7", sale_id="a")
    await rules.refresh_once()
    assert rules.is_empty
    assert rules.verdict("u1", HOST, "a") is None
    assert [entry[:3] for entry in await audit(pool)] == [
        ("olga", "access_added", "a"),
        ("otto", "access_removed", "a"),
    ]


async def test_rules_are_read_only_when_they_changed(
    add: Add, rules: AccessRules, control: AccessControl
) -> None:
    await add("user:u1", DENY)
    await add("user:u2", DENY)
    assert await rules.refresh_once() == 0
    await control.remove("olga", subject="user:u2")
    await control.add("olga", subject="user:u3", verdict=DENY)
    assert await rules.refresh_once() == 2
    assert await rules.refresh_once() == 0
    assert rules.verdict("u2", HOST, None) is None
    assert rules.verdict("u3", HOST, None) == DENY


async def test_the_last_rules_known_count_while_postgres_is_away(
    add: Add, clock: ManualClock, postgres_url: str
) -> None:
    await add("user:u1", DENY)
    pool = await open_pool(postgres_url, 1)
    rules = AccessRules(pool, clock)
    await rules.refresh_once()
    await pool.close()
    with pytest.raises(StoreUnavailable):
        await rules.refresh_once()
    assert rules.verdict("u1", HOST, "a") == DENY


async def test_rules_are_bounded_and_every_one_of_them_counts(
    add: Add,
    rules: AccessRules,
    control: AccessControl,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "RULES_MAX", 7)
    monkeypatch.setattr(access, "PAGE_MAX", 3)
    for number in range(6):
        await add(f"user:u{number}", DENY)
    await add("user:brief", DENY, expires_at=in_an_hour(clock))
    with pytest.raises(Conflict) as refused:
        await add("user:u7", DENY)
    assert refused.value.code == "too_many_rules"
    await add("user:u0", ALLOW)  # In place of its old one.
    assert [rules.verdict(f"u{number}", HOST, "a") for number in range(6)] == [ALLOW] + [DENY] * 5
    clock.advance(seconds=3600)
    await add("user:u7", DENY)
    pages = [await control.list(rows_max=4)]
    pages.append(await control.list(before=pages[0][-1].rule_id, rows_max=4))
    subjects = [rule.subject for page in pages for rule in page]
    assert subjects == ["user:u7", "user:u0", *(f"user:u{number}" for number in (5, 4, 3, 2, 1))]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"subject": "u1"}, "subject"),
        ({"subject": "user:"}, "subject"),
        ({"subject": "user:two words"}, "subject"),
        ({"subject": "address:example.com"}, "subject"),
        ({"subject": "address:203.0.113.7/24"}, "subject"),
        ({"subject": "address:2001:db8::/65"}, "subject"),
        ({"subject": "address:"}, "subject"),
        ({"reason": "x" * 201}, "reason"),
        ({"expires_at": datetime(2001, 1, 1, tzinfo=UTC)}, "expires_at"),
        ({"expires_at": datetime(2101, 1, 1)}, "expires_at"),  # noqa: DTZ001  # that is the fault
    ],
)
async def test_what_is_no_rule_is_refused(
    control: AccessControl, pool: Pool, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await control.add("olga", **({"subject": "user:u1", "verdict": DENY} | change))
    assert refused.value.field == field
    assert await audit(pool) == []


async def test_a_rule_of_no_sale_is_refused_and_leaves_nothing(
    control: AccessControl, pool: Pool
) -> None:
    with pytest.raises(UnknownSale):
        await control.add("olga", subject="user:u1", verdict=DENY, sale_id="nowhere")
    assert await audit(pool) == []
    assert await control.list() == []


@pytest.mark.parametrize(
    ("written", "subject"),
    [
        ("user:u:1", "user:u:1"),
        ("address:203.0.113.7/32", "address:203.0.113.7"),
        ("address:::ffff:203.0.113.7", "address:203.0.113.7"),
        ("address:203.0.113.0/24", "address:203.0.113.0/24"),
        ("address:2001:DB8:0::/48", "address:2001:db8::/48"),
        ("address:2001:db8::9", "address:2001:db8::/64"),
    ],
)
def test_a_subject_has_one_way_to_be_written(written: str, subject: str) -> None:
    assert canonical_subject(written) == subject
    assert canonical_subject(subject) == subject
