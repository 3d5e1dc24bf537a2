"""schemathesis against the served contract: whatever comes in, what goes out is what was promised.

Every operation of /openapi.json is called over HTTP with data that fits its schema and data that does not,
by a buyer, an operator and nobody. Each answer must have a status, a media type, headers and a body that
the document tells; no answer is a 5xx, but for the problems `unavailable` and `overloaded` of a part that
is away.

Operators call what is for operators and support, buyers what is for whoever has a token, nobody the rest;
that all others are refused is another test's. DOORBUSTER_FUZZ_EXAMPLES is how many examples each operation
gets (2), DOORBUSTER_FUZZ_SEED chooses them (1), DOORBUSTER_FUZZ_PHASES names schemathesis' phases, by
commas (examples,coverage,fuzzing; there is also stateful), and DOORBUSTER_FUZZ_EVERYTHING=1 lets each of
the three call everything. A failure prints its request as a curl command.
"""

import asyncio
import copy
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final, NamedTuple

import pytest
import schemathesis
from redis.asyncio import Redis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from api.app import CONTRACT
from api.spec import Access
from api.tokens import Role
from tests.support.contract import FittingCalls, routes_of
from tests.support.front import Served, serve
from tests.support.owned import EMAIL, own_one_of_each, register

EXAMPLES_MAX: Final = int(os.environ.get("DOORBUSTER_FUZZ_EXAMPLES", "2"))
SEED: Final = int(os.environ.get("DOORBUSTER_FUZZ_SEED", "1"))
PHASES: Final = os.environ.get("DOORBUSTER_FUZZ_PHASES", "examples,coverage,fuzzing").split(",")
EVERYTHING: Final = os.environ.get("DOORBUSTER_FUZZ_EVERYTHING") == "1"
# Whoever makes one of these has no token any more: others make them.
LEAVING: Final = {"deleteSessions", "deleteSessionsCurrent", "deleteUsersMe"}


class Who(NamedTuple):
    """Who calls, and what."""

    role: Role | None
    access: frozenset[Access]
    leaves: bool = False


WHO: Final = {
    "buyer": Who(Role.BUYER, frozenset({Access.CALLER, Access.SELF})),
    "leaver": Who(Role.BUYER, frozenset({Access.CALLER}), leaves=True),
    "operator": Who(Role.OPERATOR, frozenset({Access.SUPPORT, Access.OPERATOR})),
    "nobody": Who(None, frozenset({Access.PUBLIC, Access.VISITOR})),
}
MANY_LOGINS: Final = {"anonymous_per_second": 10_000, "anonymous_burst": 10_000}
ALL_PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")


@pytest.fixture
async def served(redis: Redis, valkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url, shed_hold_seconds=0.0, **MANY_LOGINS) as front:
        yield front


# What operators make, by the part of a path that names it, and the field that has its id.
MADE: Final = {
    "promotion": ("POST", "/v1/admin/promotions", "promotion_id"),
    "subscription": ("POST", "/v1/admin/subscriptions", "subscription_id"),
    "rule": ("POST", "/v1/admin/access-rules", "rule_id"),
    "method": ("PUT", "/v1/admin/shipping/methods/{method}", "method_id"),
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("who", WHO)
async def test_every_answer_is_one_that_was_promised(served: Served, who: str) -> None:
    user = await register(served, EMAIL, "Zebulon Quist")
    parts = {**await own_one_of_each(served, user), **await everybodys(served), "user": user}
    found = await asyncio.to_thread(run, served, WHO[who], parts)
    assert found == [], "\n\n".join(found)


async def everybodys(served: Served) -> dict[str, str]:
    """The ids of what is the shop's: unknown ids are refused too soon to find anything."""
    calls = FittingCalls(served)
    routes = {(route.method, route.path): route for route in routes_of(served)}
    found = {"sale": "demo", "sku": "phone-black", "product": "phone", "category": "phones"}
    token = served.tokens.issue("op-1", Role.OPERATOR)
    for part, (method, path, name) in MADE.items():
        call = calls.of(routes[method, path])
        headers = {**call.headers, "Authorization": f"Bearer {token}"}
        async with served.session.request(
            method, served.url + call.path, data=call.data, headers=headers
        ) as got:
            assert got.status < 300, (path, await got.read())
            found[part] = str((await got.json())[name])
    return found


def run(served: Served, who: Who, parts: Mapping[str, str]) -> list[str]:
    """What was wrong, in words with the request."""
    document = strict(served.server.app[CONTRACT].document())
    keep(document, who)
    schema = schemathesis.openapi.from_dict(document, config=config(served, who, parts))
    return list(complaints(from_schema(schema).execute()))


def config(served: Served, who: Who, parts: Mapping[str, str]) -> SchemathesisConfig:
    caller = parts["user"] if who.role is Role.BUYER else "fuzz-1"
    token = None if who.role is None else served.tokens.issue(caller, who.role)
    made = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "base-url": served.url,
            "headers": {} if token is None else {"Authorization": f"Bearer {token}"},
            # Sequences of calls find ids by themselves.
            "parameters": {}
            if "stateful" in PHASES
            else {f"path.{name}": text for name, text in parts.items()},
            "continue-on-failure": True,
            "generation": {
                "max-examples": EXAMPLES_MAX,
                "deterministic": True,
                "no-shrink": True,
                "with-security-parameters": False,
            },
            "phases": {name: phase(name) for name in ALL_PHASES},
            "checks": {
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
                # What no schema can say (times in order, names that exist) is refused as well.
                "positive_data_acceptance": {"enabled": False},
                # Of GET /v1/x/{id} and POST /v1/x/word, the latter's path takes GET as well.
                "unsupported_method": {"enabled": False},
                "allow_header_conformance": {"enabled": False},
            },
        }
    )
    made.max_failures = None
    return made


def phase(name: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {"enabled": name in PHASES}
    return {**chosen, "unexpected-methods": []} if name == "coverage" else chosen


def strict(document: dict[str, Any]) -> dict[str, Any]:
    """The document in which answers have no field that is not told; clients shall not mind one."""
    stricter = copy.deepcopy(document)
    for schema in stricter["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return stricter


def keep(document: dict[str, Any], who: Who) -> None:
    """Drops the calls that are for others."""
    for calls in document["paths"].values():
        for method, call in list(calls.items()):
            leaves = call["operationId"] in LEAVING
            is_for = EVERYTHING or call["x-access"] in who.access
            if not is_for or leaves is not who.leaves:
                del calls[method]


def complaints(happening: Iterator[events.EngineEvent]) -> Iterator[str]:
    for event in happening:
        match event:
            case events.ScenarioFinished(recorder=recorder):
                for checks in recorder.checks.values():
                    for check in checks:
                        if check.failure_info is not None:
                            failure = check.failure_info
                            yield f"{recorder.label}: {check.name}: {failure.failure}\n{failure.code_sample}"
            case events.NonFatalError(value=value, label=label):
                yield f"{label}: {value}"
            case events.FatalError(exception=exception):
                yield f"{exception}"
