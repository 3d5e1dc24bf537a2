"""Dead letters alarm until a person has dealt with them."""

from redis.asyncio import Redis

from engine.reconciler import check
from engine.servers import EmbeddedValkey
from engine.store.letters import dismiss_letter, list_letters
from engine.store.orders import bury_entry
from tests.support.truth import opened_engine, ran_sale


async def test_a_letter_fails_the_check_until_it_is_dismissed(
    valkey: EmbeddedValkey, redis: Redis, postgres_url: str
) -> None:
    async with opened_engine(valkey, postgres_url) as engine:
        await ran_sale(engine)
        pool = engine.pool
        await bury_entry(pool, "demo", "1-1", b"what is this", "no line of ours")

        failed = [finding for finding in await check(engine) if not finding.ok]
        assert [finding.number for finding in failed] == [8]
        assert "doorbuster letters" in failed[0].line

        async with pool.acquire() as connection:
            [letter] = await list_letters(connection)
            assert letter["reference"] == "1-1"
            assert await dismiss_letter(connection, letter["letter_id"], "ops", "a test entry")
            assert not await dismiss_letter(connection, letter["letter_id"], "ops", "twice")
            assert await list_letters(connection) == []
        assert all(finding.ok for finding in await check(engine))
        audited = await pool.fetchrow("SELECT * FROM audit_log ORDER BY entry_id DESC LIMIT 1")
        assert (audited["action"], audited["detail"]["reason"]) == (
            "dismiss_letter",
            "a test entry",
        )
        assert await pool.fetchval("SELECT count(*) FROM dead_letters") == 1
