"""Operators' rules: who is let in past throttles and anti-bot checks, and who is kept out.

Leaves it to the callers to ask, and to answer whoever is kept out.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, NamedTuple, TypeAlias

import msgspec

from engine.admission.addresses import ADDRESSES_MAX, CLIENT_PREFIX6, read_address
from engine.clock import Clock
from engine.config import Network
from engine.errors import Conflict, Invalid, UnknownSale
from engine.model import USER_ID
from engine.polling import poll
from engine.store.access import (
    RuleRow,
    RulesVersion,
    count_rules,
    delete_expired_rules,
    delete_rule,
    fetch_rules,
    fetch_rules_version,
    insert_rule,
    lock_rules,
)
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.sales import log_audit

RULES_MAX: Final = 10_000  # All of them lie in every front's memory: about 5 MB.
PAGE_MAX: Final = 500  # Read and understood in one turn of the event loop, about 5 ms.
REFRESH_SECONDS: Final = 1.0  # A change is known to every front so soon.
REASON_CHARACTERS_MAX: Final = 200
ADDRESS_CHARACTERS_MAX: Final = 64
FOREVER_MS: Final = float("inf")


class Verdict(StrEnum):
    """What a rule says. No rule: whatever admission says otherwise."""

    # Exempt from throttles, from wider rules that deny, from proofs of work and from the risk
    # service; never from the rules of the stock, or the room.
    ALLOW = "allow"
    DENY = "deny"  # 403 `forbidden`


class AccessRule(msgspec.Struct, frozen=True):
    """Subject `user:<id>` or `address:<address or network>`, in one sale or in all."""

    rule_id: int
    subject: str
    verdict: Verdict
    sale_id: str | None
    reason: str
    actor: str
    created_at: datetime
    expires_at: datetime | None


class AccessControl:
    """Changes rules. Each change is one transaction with its audit line; repeating it is fine."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def add(
        self,
        actor: str,
        *,
        subject: str,
        verdict: Verdict,
        sale_id: str | None = None,
        reason: str = "",
        expires_at: datetime | None = None,
    ) -> AccessRule:
        """Makes a rule, in place of the one that this subject had.

        Raises Invalid, UnknownSale, Conflict('too_many_rules'), StoreUnavailable.
        """
        now = _now(self._clock)
        _check(reason, expires_at, now)
        rule = RuleRow(canonical_subject(subject), verdict, sale_id, reason, actor, now, expires_at)
        async with self._transaction() as connection:
            await delete_expired_rules(connection, now)
            replaced = await delete_rule(connection, rule.subject, sale_id)
            if await count_rules(connection) >= RULES_MAX:
                raise Conflict("too_many_rules", f"There are {RULES_MAX} rules already.")
            rule_id = await insert_rule(connection, rule)
            if rule_id is None:
                raise UnknownSale(f"There is no sale {sale_id}.")
            detail = _detail(rule) | {"replaced": replaced.verdict if replaced else None}
            await log_audit(
                connection, actor=actor, action="access_added", sale_id=sale_id, detail=detail
            )
        return _rule(rule_id, rule)

    async def remove(self, actor: str, *, subject: str, sale_id: str | None = None) -> bool:
        """Forgets a subject's rule for that sale, or for all. False if there was none.

        Raises Invalid, StoreUnavailable.
        """
        async with self._transaction() as connection:
            removed = await delete_rule(connection, canonical_subject(subject), sale_id)
            if removed is None:
                return False
            await log_audit(
                connection,
                actor=actor,
                action="access_removed",
                sale_id=sale_id,
                detail=_detail(removed),
            )
        return True

    async def list(
        self, *, before: int | None = None, rows_max: int = RULES_MAX
    ) -> list[AccessRule]:
        """The rules that count now, newest first, from below rule `before`. Raises StoreUnavailable."""
        with postgres_errors():
            found = await fetch_rules(
                self._pool, _now(self._clock), before=before, rows_max=rows_max
            )
        return [_rule(rule_id, row) for rule_id, row in found]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await lock_rules(connection)
                yield connection


class _Rule(NamedTuple):
    verdict: Verdict
    until_ms: float


_BySale: TypeAlias = dict[str | None, _Rule]  # None: every sale


class _Level(NamedTuple):
    """The networks of one length."""

    version: int
    shift: int
    networks: dict[int, _BySale]


class _Shelf:
    """The rules as they are looked up, while they are read."""

    def __init__(self) -> None:
        self.users: dict[str, _BySale] = {}
        self._levels: dict[tuple[int, int], _Level] = {}

    def add(self, row: RuleRow) -> None:
        until_ms = row.expires_at.timestamp() * 1000 if row.expires_at else FOREVER_MS
        kind, _, name = row.subject.partition(":")
        of_subject = (
            self.users.setdefault(name, {}) if kind == "user" else self._of(ip_network(name))
        )
        of_subject[row.sale_id] = _Rule(Verdict(row.verdict), until_ms)

    def levels(self) -> list[_Level]:
        """The narrowest networks first."""
        return sorted(self._levels.values(), key=lambda level: level.shift)

    def _of(self, network: Network) -> _BySale:
        shift = network.max_prefixlen - network.prefixlen
        level = self._levels.setdefault(
            (network.version, shift), _Level(network.version, shift, {})
        )
        return level.networks.setdefault(int(network.network_address) >> shift, {})


class AccessRules:
    """The rules in memory, about a second old; the last ones known while Postgres is away."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._version = RulesVersion(0, 0)
        self._users: dict[str, _BySale] = {}
        self._levels: list[_Level] = []
        self._known: dict[str, tuple[_BySale, ...]] = {}  # by address
        self._reading = asyncio.Lock()  # A slow reader must not bring older rules back.
        self._stopped = asyncio.Event()
        self.is_empty = True

    def verdict(self, user_id: str | None, address: str, sale_id: str | None) -> Verdict | None:
        """Of the narrowest rule: a user's before an address's, a small network's before a large
        one's, and of one subject that for this sale before that for all. Does no I/O.

        `address` as AddressReader names it; `sale_id` None: the request is about no sale.
        """
        if user_id is not None and (rules := self._users.get(user_id)) is not None:
            verdict = self._counting(rules, sale_id)
            if verdict is not None:
                return verdict
        found = self._known.get(address)
        for rules in self._learn(address) if found is None else found:
            verdict = self._counting(rules, sale_id)
            if verdict is not None:
                return verdict
        return None

    def _counting(self, rules: _BySale, sale_id: str | None) -> Verdict | None:
        for scope in (sale_id, None):
            rule = rules.get(scope)
            if rule is not None and rule.until_ms > self._clock.now_ms():
                return rule.verdict
        return None

    def _learn(self, address: str) -> tuple[_BySale, ...]:
        """The rules of all networks that an address is in, the narrowest first."""
        if len(self._known) >= ADDRESSES_MAX:
            self._known.clear()
        found = tuple(self._covering(address))
        if len(address) <= ADDRESS_CHARACTERS_MAX:
            self._known[address] = found
        return found

    def _covering(self, address: str) -> list[_BySale]:
        parsed = read_address(address.partition("/")[0])
        if parsed is None:
            return []
        number = int(parsed)
        return [
            level.networks[number >> level.shift]
            for level in self._levels
            if level.version == parsed.version and number >> level.shift in level.networks
        ]

    async def run(self) -> None:
        """Refreshes until stopped. Raises StoreUnavailable: call it again."""
        await poll(self.refresh_once, self._stopped, REFRESH_SECONDS)

    async def refresh_once(self) -> int:
        """Reads the rules if they changed; returns how many were read. Raises StoreUnavailable."""
        async with self._reading:
            with postgres_errors():
                version = await fetch_rules_version(self._pool)
                if version == self._version:
                    return 0
                shelf, count = await self._read()
            self._version = version
            self._users, self._levels, self._known = shelf.users, shelf.levels(), {}
            self.is_empty = count == 0
            return count

    async def _read(self) -> tuple[_Shelf, int]:
        shelf, count, before = _Shelf(), 0, None
        for _ in range(RULES_MAX // PAGE_MAX + 1):
            page = await fetch_rules(
                self._pool, _now(self._clock), before=before, rows_max=PAGE_MAX
            )
            for _, row in page:
                shelf.add(row)
            count += len(page)
            if len(page) < PAGE_MAX:
                break
            before = page[-1][0]
        return shelf, count

    def stop(self) -> None:
        """Makes `run` return after the pass it is in. Idempotent, safe before start."""
        self._stopped.set()


def canonical_subject(text: str) -> str:
    """The one way to write a subject. Raises Invalid."""
    kind, _, name = text.partition(":")
    if kind == "user" and USER_ID.fullmatch(name):
        return text
    if kind == "address":
        return f"address:{_canonical_network(name)}"
    raise Invalid("subject", "must be user:<id> or address:<address or network>")


def _canonical_network(name: str) -> str:
    network: IPv4Network | IPv6Network
    try:
        address = None if "/" in name else read_address(name)
        network = ip_network(name if address is None else address)
    except ValueError as error:
        raise Invalid("subject", f"is no address or network: {error}") from error
    if isinstance(network, IPv4Network):
        return str(network).removesuffix("/32")
    if network.prefixlen <= CLIENT_PREFIX6:
        return str(network)
    if "/" in name:
        # Its neighbours in the /64 may be the same visitor, and nobody else is.
        raise Invalid("subject", f"an IPv6 network has a prefix of {CLIENT_PREFIX6} or less")
    return str(network.supernet(new_prefix=CLIENT_PREFIX6))


def _check(reason: str, expires_at: datetime | None, now: datetime) -> None:
    if len(reason) > REASON_CHARACTERS_MAX:
        raise Invalid("reason", f"has more than {REASON_CHARACTERS_MAX} characters")
    if expires_at is None:
        return
    if expires_at.tzinfo is None:
        raise Invalid("expires_at", "lacks its time zone")
    if expires_at <= now:
        raise Invalid("expires_at", "is over")


def _rule(rule_id: int, row: RuleRow) -> AccessRule:
    return AccessRule(rule_id, row.subject, Verdict(row.verdict), *row[2:])


def _detail(row: RuleRow) -> dict[str, object]:
    return {
        "subject": row.subject,
        "verdict": row.verdict,
        "reason": row.reason,
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
    }


def _now(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
