"""`check` against real Valkey and Postgres: a sound system passes, each kind of damage is named."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from redis.asyncio import Redis

from engine.core import Engine
from engine.inventory.inventory import format_record, parse_record
from engine.keys import shard_keys
from engine.model import ReservationState, Reserved
from engine.reconciler import INVARIANTS, Finding, check
from engine.servers import EmbeddedValkey
from engine.store.resolutions import CANCEL, EXPIRE, PAY
from tests.support.sales import reserve_for
from tests.support.truth import BUYERS, dispatch, drain, move, opened_engine, ran_sale

KEYS = shard_keys("demo")
UNPAID = BUYERS[5]


@pytest.fixture
async def engine(valkey: EmbeddedValkey, redis: Redis, postgres_url: str) -> AsyncIterator[Engine]:
    async with opened_engine(valkey, postgres_url) as engine:
        yield engine


async def found(engine: Engine) -> list[Finding]:
    return await check(engine, settle_seconds=0)


async def failing(engine: Engine) -> set[int]:
    return {finding.number for finding in await found(engine) if not finding.ok}


async def sql(engine: Engine, *statements: str) -> None:
    async with engine.pool.acquire() as connection:
        for statement in statements:
            await connection.execute(statement)


async def test_sale_that_ran_proves_all_invariants_and_says_what_was_counted(
    engine: Engine,
) -> None:
    await ran_sale(engine)
    findings = await found(engine)
    assert [finding.number for finding in findings] == list(INVARIANTS)
    assert [finding.line for finding in findings if not finding.ok] == []
    lines = [finding.line for finding in findings]
    assert lines[0] == "ok    1. no oversell — 2 SKUs, 40 units stocked, 12 ordered"
    assert lines[1].endswith("2 SKUs, 40 units in Redis, 1 sales equal in Redis and Postgres")
    assert lines[2].startswith("ok    3. one fate — 8 reservations")
    assert lines[5] == "ok    6. one charge per order — 1 paid orders, 1 captured payments"


async def test_nothing_to_check_passes(engine: Engine) -> None:
    assert await failing(engine) == set()


async def test_reservations_on_their_way_are_no_failure(engine: Engine) -> None:
    sale, bought = await ran_sale(engine)
    await reserve_for(engine.inventory, sale, ["late-1", "late-2"])
    await move(engine, PAY, UNPAID, bought[UNPAID])  # and Redis not told yet
    assert await failing(engine) == set()
    assert "2 in the stream" in (await found(engine))[2].figures


async def test_damage_that_mends_itself_while_it_is_looked_at_is_no_failure(
    engine: Engine, redis: Redis
) -> None:
    await ran_sale(engine)
    record = await redis.hget(KEYS.buyers, UNPAID)
    await redis.hdel(KEYS.buyers, UNPAID)
    assert await failing(engine) == {2, 8}

    scanned = asyncio.Event()
    checking = asyncio.create_task(
        check(engine, ["demo"], lambda step, *_: scanned.set() if "read" in step else None)
    )
    await scanned.wait()
    await redis.hset(KEYS.buyers, UNPAID, record)
    assert [finding.line for finding in await checking if not finding.ok] == []


async def test_sale_in_full_swing_proves_all_invariants(engine: Engine) -> None:
    sale, _ = await ran_sale(engine, stock=10_000)
    checked = asyncio.Event()

    async def trade() -> int:
        rounds = 0
        while not checked.is_set():
            users = [f"live-{rounds}-{number}" for number in range(20)]
            answers = await reserve_for(engine.inventory, sale, users)
            await drain(engine)
            for resolution, user, answer in zip(
                (PAY, CANCEL, EXPIRE), users, answers, strict=False
            ):
                assert isinstance(answer, Reserved)
                await move(engine, resolution, user, answer)
            await dispatch(engine)
            rounds += 1
        return rounds

    trading = asyncio.create_task(trade())
    try:
        for _ in range(5):
            findings = await check(engine)
            assert [finding.line for finding in findings if not finding.ok] == []
    finally:
        checked.set()
    assert await trading > 0
    assert await failing(engine) == set()


Damage = Callable[[Engine, Redis, dict[str, Reserved]], Awaitable[None]]
DAMAGES: dict[str, tuple[Damage, set[int]]] = {}


def damage(*numbers: int) -> Callable[[Damage], Damage]:
    """Names the invariants that break, all of them and no others."""

    def register(function: Damage) -> Damage:
        DAMAGES[function.__name__] = (function, set(numbers))
        return function

    return register


@damage(1)
async def more_ordered_than_stocked(engine: Engine, redis: Redis, _: object) -> None:
    """A stock of 5 phones with 6 orders, in perfect agreement everywhere."""
    await sql(
        engine,
        "ALTER TABLE sale_items DROP CONSTRAINT no_oversell",
        "UPDATE sale_items SET stocked = 5 WHERE sku = 'phone-black'",
        "INSERT INTO ledger (sale_id, sku, counter, units, reason)"
        " VALUES ('demo', 'phone-black', 'stocked', -15, 'restocked')",
    )
    await redis.hincrby(KEYS.stock, "phone-black:available", -15)


@damage(2)
async def units_appear_in_redis(_: object, redis: Redis, __: object) -> None:
    await redis.hincrby(KEYS.stock, "phone-black:available", 1)


@damage(2)
async def units_move_in_redis_behind_the_records(_: object, redis: Redis, __: object) -> None:
    await redis.hincrby(KEYS.stock, "phone-black:available", 1)
    await redis.hincrby(KEYS.stock, "phone-black:reserved", -1)


@damage(2)
async def sku_is_lost_in_redis(_: object, redis: Redis, __: object) -> None:
    await redis.hdel(KEYS.stock, "case:available", "case:reserved", "case:sold")


@damage(3)
async def acknowledged_reservation_is_lost_on_its_way(
    engine: Engine, redis: Redis, __: object
) -> None:
    sale = await engine.sales.get("demo")
    await reserve_for(engine.inventory, sale, ["lost"])
    # Deleted before anybody stored it. A message on its way keeps the counters from being compared.
    await redis.xtrim(KEYS.orders, maxlen=0, approximate=False)
    await sql(
        engine, "INSERT INTO outbox (kind, sale_id, reference) VALUES ('confirm', 'demo', '-')"
    )


@damage(3)
async def order_and_record_disagree(engine: Engine, redis: Redis, __: object) -> None:
    """A paid order is unpaid in Redis, with nobody about to tell it; kept in motion by another."""
    await sql(
        engine, "INSERT INTO outbox (kind, sale_id, reference) VALUES ('confirm', 'demo', '-')"
    )
    record = parse_record((await redis.hget(KEYS.buyers, BUYERS[0])).decode())
    changed = [msgspec.structs.replace(record[0], state=ReservationState.RESERVED)]
    await redis.hset(KEYS.buyers, BUYERS[0], format_record(changed))
    for sku in ("case", "phone-black"):
        await redis.hincrby(KEYS.stock, f"{sku}:sold", -1)
        await redis.hincrby(KEYS.stock, f"{sku}:reserved", 1)


@damage(4)
async def buyer_holds_more_than_the_limit(engine: Engine, _: object, __: object) -> None:
    await sql(engine, "UPDATE sales SET per_user_max = 1")


@damage(5)
async def record_has_other_items_than_its_order(engine: Engine, _: object, __: object) -> None:
    await sql(
        engine,
        "UPDATE orders SET items = '{\"case\": 2}' WHERE status = 'cancelled'",
    )


@damage(5)
async def reservation_stands_twice_in_a_record(_: object, redis: Redis, __: object) -> None:
    cancelled = await redis.hget(KEYS.buyers, BUYERS[1])
    await redis.hset(KEYS.buyers, BUYERS[1], cancelled + b"\n" + cancelled)


@damage(6)
async def paid_order_was_never_charged(engine: Engine, _: object, __: object) -> None:
    await sql(engine, "UPDATE payments SET status = 'failed'")


@damage(6)
async def order_was_charged_twice(engine: Engine, _: object, __: object) -> None:
    await sql(
        engine,
        "DROP INDEX payments_captured",
        "INSERT INTO payments (payment_id, sale_id, reservation_id, idempotency_key, provider,"
        " amount_minor, currency, status) SELECT 'second', sale_id, reservation_id, 'second',"
        " provider, amount_minor, currency, status FROM payments",
    )


@damage(6)
async def cancelled_order_was_charged_in_silence(engine: Engine, _: object, __: object) -> None:
    await sql(
        engine,
        "INSERT INTO payments (payment_id, sale_id, reservation_id, idempotency_key, provider,"
        " amount_minor, currency, status) SELECT 'late', sale_id, reservation_id, 'late',"
        " 'sandbox', amount_minor, currency, 'captured' FROM orders WHERE status = 'cancelled'",
    )


@damage(6)
async def buyer_was_charged_another_amount(engine: Engine, _: object, __: object) -> None:
    await sql(engine, "UPDATE payments SET amount_minor = amount_minor - 1")


@damage(7)
async def webhook_lies_unhandled(engine: Engine, _: object, __: object) -> None:
    await sql(
        engine,
        "INSERT INTO webhook_inbox (provider, event_id, body, received_at)"
        " VALUES ('sandbox', 'e1', '', now() - interval '5 minutes')",
    )


@damage(7)
async def webhook_was_given_up(engine: Engine, _: object, __: object) -> None:
    await sql(
        engine,
        "INSERT INTO dead_letters (source, reference, body, error) VALUES ('webhook', 'e1', '', 'x')",
    )


@damage(8)
async def stream_entry_was_given_up(engine: Engine, _: object, __: object) -> None:
    await sql(
        engine,
        "INSERT INTO dead_letters (source, sale_id, reference, body, error)"
        " VALUES ('stream', 'demo', '1-1', '', 'x')",
    )


@damage(8)
async def order_has_no_record_in_redis(_: object, redis: Redis, __: object) -> None:
    await redis.hdel(KEYS.buyers, BUYERS[1])  # Cancelled: it holds no units.


@damage(9)
async def outbox_message_lies_untaken(engine: Engine, _: object, __: object) -> None:
    await sql(
        engine,
        "INSERT INTO outbox (kind, sale_id, reference, due_at)"
        " VALUES ('pay', 'demo', 'p', now() - interval '5 minutes')",
    )


@damage(9)
async def unpaid_order_is_never_reaped(engine: Engine, _: object, __: object) -> None:
    await sql(
        engine,
        "UPDATE orders SET reserved_until = now() - interval '5 minutes'"
        " WHERE status = 'awaiting_payment'",
    )


@damage(9)
async def stream_entry_lies_undrained(
    engine: Engine, redis: Redis, bought: dict[str, Reserved]
) -> None:
    line = f"{bought[UNPAID].reservation_id} {UNPAID} case*1,phone-black*1"
    await redis.delete(KEYS.orders)
    await redis.xadd(KEYS.orders, {"until_s": 1, "at_ms": 1, "batch": line}, id="1000-0")


@damage(10)
async def epochs_differ(engine: Engine, _: object, __: object) -> None:
    await sql(engine, "UPDATE sales SET epoch = 7")


@damage(10)
async def sale_is_fenced_in_silence(_: object, redis: Redis, __: object) -> None:
    await redis.hset(KEYS.config, "state", "draining")


@damage(10)
async def sale_waits_for_recovery(engine: Engine, redis: Redis, _: object) -> None:
    await sql(engine, "UPDATE sales SET fenced = 'test'")
    await redis.hset(KEYS.config, "state", "draining")


@damage(11)
async def ledger_line_is_missing(engine: Engine, _: object, __: object) -> None:
    await sql(
        engine,
        "ALTER TABLE ledger DISABLE TRIGGER ledger_append_only",
        "DELETE FROM ledger WHERE reason = 'paid' AND sku = 'case'",
        "ALTER TABLE ledger ENABLE TRIGGER ledger_append_only",
    )


@damage(11)
async def ledger_may_be_rewritten(engine: Engine, _: object, __: object) -> None:
    await sql(engine, "ALTER TABLE ledger DISABLE TRIGGER ledger_append_only")


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_fails_exactly_its_line(name: str, engine: Engine, redis: Redis) -> None:
    _, bought = await ran_sale(engine)
    break_it, numbers = DAMAGES[name]
    await break_it(engine, redis, bought)
    lines = [finding.line for finding in await found(engine) if not finding.ok]
    assert {int(line.split()[1].rstrip(".")) for line in lines} == numbers, lines


async def test_redis_that_lost_everything_fails_loudly(engine: Engine, redis: Redis) -> None:
    await ran_sale(engine)
    await redis.flushall()
    assert {2, 8, 10} <= await failing(engine)


async def test_refund_that_nobody_carries_out_is_named(engine: Engine) -> None:
    await ran_sale(engine)
    await sql(engine, "UPDATE payments SET status = 'refunding'")
    assert await failing(engine) == set()  # Decided a moment ago.
    await sql(engine, "UPDATE payments SET updated_at = now() - interval '1 hour'")
    assert await failing(engine) == {6}
    await sql(
        engine,
        "INSERT INTO outbox (kind, sale_id, reference) SELECT 'refund', sale_id, payment_id FROM payments",
    )
    assert await failing(engine) == set()
