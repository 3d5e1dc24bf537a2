"""A provider's statement against the payments here: real bills of practised gateways, with differences put in."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from api.reconciliation.reconciler import DailyReconciler
from api.reconciliation.store import ATTEMPTS_MAX, Reconciliations
from api.sandbox.mischief import Mischief
from api.sandbox.trades import Trade, TradeState
from api.tokens import Role
from engine.clock import SystemClock
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from tests.support.gateways import Practice, empty_database, empty_redis, practise

PROVIDERS = ("alipay", "wechatpay", "stripe")
DAY_SECONDS = 86_400

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def practice(valkey: EmbeddedValkey, postgres: EmbeddedPostgres) -> AsyncIterator[Practice]:
    """One for all tests here."""
    async with (
        empty_redis(valkey),
        empty_database(postgres) as postgres_url,
        practise(valkey.url, postgres_url) as practice,
    ):
        yield practice


@pytest.fixture(autouse=True)
def calm(practice: Practice) -> Iterator[None]:
    yield
    practice.calm_down()


def yesterday(provider: str) -> date:
    hours = 0 if provider == "stripe" else 8
    now = datetime.now(UTC).astimezone(timezone(timedelta(hours=hours)))
    return now.date() - timedelta(days=1)


async def paid_yesterday(practice: Practice, provider: str) -> tuple[str, Trade]:
    """A payment, and the gateway's word for it."""
    practice.rewind()
    practice.clock.advance(seconds=-DAY_SECONDS)
    practice.mood(provider, Mischief.DROP)
    payment = await practice.pending(await practice.order(provider), provider)
    assert await practice.decide(payment) == 200
    await practice.ask()
    assert await practice.payment_status(payment) == "captured"
    trade = practice.gateway(provider).book.find(provider, payment)
    assert trade is not None
    return payment, trade


async def paid_and_paid_back(practice: Practice, provider: str) -> tuple[str, Trade]:
    payment, trade = await paid_yesterday(practice, provider)
    await practice.refund(payment)
    await practice.work()
    assert await practice.payment_status(payment) == "refunded"
    # Where the provider's answer says no time of the refund, it is ours: today's.
    await practice.pool.execute(
        "UPDATE payments SET refunded_at = captured_at WHERE payment_id = $1", payment
    )
    return payment, trade


async def reconciled(practice: Practice, provider: str) -> Any:
    """What an operator reads of a reconciliation that was just asked for."""
    body = {"provider": provider, "day": yesterday(provider).isoformat()}
    wanted = await practice.served.operate("/reconciliations", body)
    assert wanted.status == 202, wanted.body
    practice.rewind()
    book = Reconciliations(practice.pool)
    only = {provider: practice.providers[provider]}
    reconciler = DailyReconciler(book, only, SystemClock(), reconcile_at=0)
    while await reconciler.reconcile_once():
        pass
    shown = await practice.served.get(wanted.headers["Location"], user="sup-1", role=Role.SUPPORT)
    assert shown.json["reconciliation"]["state"] == "done", shown.body
    return shown.json


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_day_that_agrees_has_no_differences_and_each_injected_one_is_found(
    practice: Practice, provider: str
) -> None:
    gateway = practice.gateway(provider)
    await paid_yesterday(practice, provider)
    await paid_and_paid_back(practice, provider)
    agreed = await reconciled(practice, provider)
    assert (agreed["found"], agreed["reconciliation"]["lines"]) == ([], 3)

    wanted: dict[str, str] = {}

    def save(trade: Trade, **changes: Any) -> Trade:
        changed = msgspec.structs.replace(trade, **changes)
        gateway.book.save(provider, changed)
        return changed

    payment, trade = await paid_yesterday(practice, provider)
    wanted[payment] = "amount"
    save(trade, amount_minor=trade.amount_minor + 1)
    payment, trade = await paid_yesterday(practice, provider)
    wanted[payment] = "missing_there"
    save(trade, paid_ms=None)
    payment, trade = await paid_yesterday(practice, provider)
    wanted[payment] = "refund"  # Paid back by hand, there.
    save(trade, state=TradeState.REFUNDED, refunded_ms=trade.paid_ms)
    payment, trade = await paid_and_paid_back(practice, provider)
    wanted[payment] = "refund"  # Paid back here only.
    save(trade, state=TradeState.PAID, refunded_ms=None)
    save(trade, number="pay_of_nobody", ref="pi_nobody", refunded_ms=None)
    wanted["pay_of_nobody"] = "missing_here"
    payment, trade = await paid_yesterday(practice, provider)
    wanted[payment] = "status"
    await practice.pool.execute(
        "UPDATE payments SET status = 'failed', captured_at = NULL WHERE payment_id = $1", payment
    )
    if provider != "alipay":  # Whose bills are in yuan by definition.
        payment, trade = await paid_yesterday(practice, provider)
        wanted[payment] = "currency"
        save(trade, currency="EUR")

    found = await reconciled(practice, provider)
    assert {one["payment_id"]: one["kind"] for one in found["found"]} == wanted
    assert found["reconciliation"]["differences"] == len(wanted)
    assert all(one.get("ours") or one["kind"] == "missing_here" for one in found["found"])


async def test_every_day_is_reconciled_once_by_itself(practice: Practice) -> None:
    book, provider = Reconciliations(practice.pool), practice.providers["stripe"]
    await practice.pool.execute("DELETE FROM reconciliation_differences")
    await practice.pool.execute("DELETE FROM reconciliations")
    for _ in range(2):  # As after a restart.
        reconciler = DailyReconciler(book, {"stripe": provider}, SystemClock(), reconcile_at=0)
        for _ in range(2):
            await reconciler.reconcile_once()
    (done,) = await book.list("stripe", None, 10)
    assert (done.day, done.asked_by, done.state) == (yesterday("stripe"), "daily", "done")


async def test_statement_that_is_not_there_yet_is_asked_for_again_and_given_up_in_the_end(
    practice: Practice,
) -> None:
    book = Reconciliations(practice.pool)
    wanted = await book.want("wechatpay", yesterday("wechatpay"), "op-1")
    practice.mood("wechatpay", Mischief.DOWN)
    only = {"wechatpay": practice.providers["wechatpay"]}
    for _ in range(ATTEMPTS_MAX):
        reconciler = DailyReconciler(book, only, SystemClock(), reconcile_at=0)
        await practice.pool.execute("UPDATE reconciliations SET due_at = now()")
        while await reconciler.reconcile_once():
            pass
    kept = await book.find(wanted.reconciliation_id)
    assert kept is not None
    assert (kept.state, kept.error) == ("failed", "WeChat Pay answered 503.")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"provider": "paypal"}, "provider"),
        ({"day": "2026-02-30"}, "day"),
        ({"day": "9999-01-01"}, "day"),
        ({"day": "yesterday"}, "day"),
    ],
)
async def test_unknown_providers_and_days_that_are_not_over_are_refused(
    practice: Practice, changes: dict[str, str], field: str
) -> None:
    body = {"provider": "alipay", "day": "2026-01-01"} | changes
    refused = await practice.served.operate("/reconciliations", body)
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert refused.json["errors"][0]["field"] == field


async def test_support_reads_and_does_not_order_reconciliations(practice: Practice) -> None:
    body = {"provider": "alipay", "day": "2026-01-01"}
    path = "/v1/admin/reconciliations"
    ordered = await practice.served.post(path, user="sup-1", role=Role.SUPPORT, body=body)
    assert ordered.status == 403
    assert (await practice.served.get(path, user="ann")).status == 403
    first = await practice.served.get(f"{path}?limit=1", user="sup-1", role=Role.SUPPORT)
    assert len(first.json["reconciliations"]) == 1
    after = first.json["next"]
    second = await practice.served.get(
        f"{path}?limit=1&after={after}", user="sup-1", role=Role.SUPPORT
    )
    assert second.json["reconciliations"] != first.json["reconciliations"]
    for name in ("0", "x", "9" * 30):
        gone = await practice.served.get(f"{path}/{name}", user="sup-1", role=Role.SUPPORT)
        assert gone.status == 404


async def test_statement_in_a_file_is_compared_by_the_command_line(
    practice: Practice, tmp_path: Path
) -> None:
    bill = tmp_path / "bill.csv"
    header = "支付宝交易号,商户订单号,业务类型,订单金额（元）"
    bill.write_bytes(f"#账单\r\n{header}\r\n2026,pay_lost,交易,9.90\r\n".encode("gbk"))
    settings = practice.served.engine.settings
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api.cli.main", "reconcile", "--provider", "alipay"),
        *("--day", "2026-01-01", "--file", str(bill)),
        env={
            "DOORBUSTER_REDIS_URL": str(settings.redis_url),
            "DOORBUSTER_POSTGRES_URL": str(settings.postgres_url),
            "DOORBUSTER_SECRET": "s" * 32,
            "COLUMNS": "200",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, complaint = await process.communicate()
    assert process.returncode == 1, complaint
    assert b"missing_here" in told, told
    assert b"pay_lost" in told
