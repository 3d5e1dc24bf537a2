"""One served engine for all tests of a file on accounts: none pays for its own, each meets nobody."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from engine.connections import connect_redis
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.databases import fresh_database
from tests.support.front import Served, serve

# Sessions, links and logins elsewhere go with their users.
_TABLES = ("users", "addresses", "mails", "link_requests", "oauth_logins")
_FORGET = "; ".join(f"DELETE FROM {table}" for table in _TABLES)


@asynccontextmanager
async def serve_all(
    valkey: EmbeddedValkey, postgres: EmbeddedPostgres, **changes: Any
) -> AsyncIterator[Served]:
    """For a fixture of the file's own scope, with nothing in Redis."""
    redis = connect_redis(valkey.url, 5)
    await redis.flushall()
    await redis.aclose()
    async with fresh_database(postgres) as url, serve(valkey.url, url, **changes) as served:
        yield served


async def forget_everybody(served: Served) -> None:
    """Before each test: no user, no mail, nothing in what the door has learnt of tokens."""
    await served.engine.pool.execute(_FORGET)
    revocations = served.front.revocations
    revocations._first.clear()
    revocations._tell()
