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
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
import schemathesis
from redis.asyncio import Redis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from api.app import CONTRACT
from api.spec import Access
from api.tokens import Role
from tests.support.front import Served, serve

EXAMPLES_MAX: Final = int(os.environ.get("DOORBUSTER_FUZZ_EXAMPLES", "2"))
SEED: Final = int(os.environ.get("DOORBUSTER_FUZZ_SEED", "1"))
PHASES: Final = os.environ.get("DOORBUSTER_FUZZ_PHASES", "examples,coverage,fuzzing").split(",")
EVERYTHING: Final = os.environ.get("DOORBUSTER_FUZZ_EVERYTHING") == "1"
OF_ROLE: Final = {
    Role.BUYER: {Access.CALLER, Access.SELF},
    Role.OPERATOR: {Access.SUPPORT, Access.OPERATOR},
    None: {Access.PUBLIC, Access.VISITOR},
}
ALL_PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")


@pytest.fixture
async def served(redis: Redis, valkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url, shed_hold_seconds=0.0) as front:
        await front.sell("double-11")
        yield front


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("role", [Role.BUYER, Role.OPERATOR, None])
async def test_every_answer_is_one_that_was_promised(served: Served, role: Role | None) -> None:
    found = await asyncio.to_thread(run, served, role)
    assert found == [], "\n\n".join(found)


def run(served: Served, role: Role | None) -> list[str]:
    """What was wrong, in words with the request."""
    document = strict(served.server.app[CONTRACT].document())
    if not EVERYTHING:
        keep(document, OF_ROLE[role])
    schema = schemathesis.openapi.from_dict(document, config=config(served, role))
    return list(complaints(from_schema(schema).execute()))


def config(served: Served, role: Role | None) -> SchemathesisConfig:
    token = None if role is None else served.tokens.issue(f"fuzz-{role}", role)
    made = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "base-url": served.url,
            "headers": {} if token is None else {"Authorization": f"Bearer {token}"},
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


def keep(document: dict[str, Any], access: set[Access]) -> None:
    """Drops the calls that are for others."""
    for calls in document["paths"].values():
        for method in [m for m, call in calls.items() if call["x-access"] not in access]:
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
