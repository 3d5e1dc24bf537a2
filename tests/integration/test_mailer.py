"""Mails reach a real server once, are tried again, given up visibly, and told about orders."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from api.mail.log import list_mails, retry_failed
from api.mail.mailer import ATTEMPTS_MAX, Mailer
from api.mail.orders import OrderMails
from api.mail.queue import put_mail
from api.mail.senders import PrintSender, SmtpSender
from engine.store.database import Pool
from tests.support.smtp import MailServer, mail_server
from tests.support.users import register

LI = "li@example.com"
FROM = "抢购 Doorbuster <shop@doorbuster.example>"
RESET = {"name": "李雷", "token": "t0ken", "link": "https://shop.example/reset?token=t0ken"}
DUE = "UPDATE mails SET due_at = now() WHERE state = 'waiting'"


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


def mailer(pool: Pool, server: MailServer) -> Mailer:
    return Mailer(pool, SmtpSender(server.url, FROM))


async def put(pool: Pool, to: str = LI, language: str = "zh-CN", **values: object) -> None:
    async with pool.acquire() as connection:
        await put_mail(connection, kind="reset", to=to, language=language, values=RESET | values)


async def states(pool: Pool) -> list[tuple[str, int]]:
    rows = await pool.fetch("SELECT state, attempts FROM mails ORDER BY mail_id")
    return [tuple(row) for row in rows]


async def test_a_mail_arrives_in_its_readers_language_and_is_forgotten_here(
    pool: Pool, server: MailServer
) -> None:
    await put(pool)
    assert await mailer(pool, server).send_once() == 1
    (mail,) = server.arrived
    assert server.envelopes == [("shop@doorbuster.example", [LI])]
    assert (mail["Subject"], mail["To"], mail["From"]) == ("重置您的密码", LI, FROM)
    assert "https://shop.example/reset?token=t0ken" in mail.get_content()
    assert await pool.fetchval("SELECT content FROM mails") == {}
    assert await states(pool) == [("sent", 1)]
    assert await mailer(pool, server).send_once() == 0


async def test_a_mail_is_sent_only_if_what_it_tells_came_true(
    pool: Pool, server: MailServer
) -> None:
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await put_mail(connection, kind="reset", to=LI, language="en", values=RESET)
        assert await mailer(pool, server).send_once() == 0
        await transaction.rollback()
    assert await mailer(pool, server).send_once() == 0


async def test_two_mailers_send_each_mail_once_over_one_conversation_each(
    pool: Pool, server: MailServer
) -> None:
    for n in range(60):
        await put(pool, f"u{n}@example.com", "en")
    await asyncio.gather(*(mailer(pool, server).send_once() for _ in range(2)))
    assert sorted(mail["To"] for mail in server.arrived) == sorted(
        f"u{n}@example.com" for n in range(60)
    )
    assert server.conversations == 2


async def test_what_a_server_cannot_take_now_is_tried_again_later_and_the_rest_goes_out(
    pool: Pool, server: MailServer
) -> None:
    server.refusals[LI] = "451 greylisted, come back"
    await put(pool)
    await put(pool, "other@example.com")
    await mailer(pool, server).send_once()
    assert await states(pool) == [("waiting", 1), ("sent", 1)]
    assert await mailer(pool, server).send_once() == 0  # Not at once.
    del server.refusals[LI]
    await pool.execute(DUE)
    await mailer(pool, server).send_once()
    assert await states(pool) == [("sent", 2), ("sent", 1)]
    assert len(server.arrived) == 2


async def test_what_no_server_will_ever_take_is_given_up_and_seen(
    pool: Pool, server: MailServer
) -> None:
    before = REGISTRY.get_sample_value("doorbuster_mails_total", {"state": "failed"}) or 0
    server.refusals = {LI: "550 no such mailbox", "slow@example.com": "451 later"}
    await put(pool)
    await put(pool, "slow@example.com")
    for _ in range(ATTEMPTS_MAX):
        await pool.execute(DUE)
        await mailer(pool, server).send_once()
    assert await states(pool) == [("failed", 1), ("failed", ATTEMPTS_MAX)]
    failed = await list_mails(pool, state="failed", rows_max=10)
    assert [("550" in str(mail.last_error), "451" in str(mail.last_error)) for mail in failed] == [
        (False, True),
        (True, False),
    ]
    after = REGISTRY.get_sample_value("doorbuster_mails_total", {"state": "failed"})
    assert after == before + 2
    server.refusals = {}
    assert await retry_failed(pool, "op-1") == 2
    await mailer(pool, server).send_once()
    assert len(server.arrived) == 2


async def test_a_mail_that_cannot_be_written_holds_no_other_up(
    pool: Pool, server: MailServer
) -> None:
    await put(pool)
    await pool.execute(
        "INSERT INTO mails (kind, recipient, language, content, due_at) VALUES"
        " ('order_paid', 'li@example.com', 'en', $1, now() - interval '1 s')",
        {"order_id": "shop.1", "amount_minor": "not a number", "currency": "CNY"},
    )
    assert await mailer(pool, server).send_once() == 2
    assert sorted(state for state, _ in await states(pool)) == ["failed", "sent"]


async def test_a_server_that_is_away_costs_no_mail_its_life(pool: Pool) -> None:
    async with mail_server() as gone:
        sender = SmtpSender(gone.url, FROM)
    await put(pool)
    for _ in range(ATTEMPTS_MAX + 2):
        await pool.execute(DUE)
        assert await Mailer(pool, sender).send_once() == 1
    assert await states(pool) == [("waiting", ATTEMPTS_MAX - 1)]


async def test_no_name_becomes_a_header_and_no_line_ends_a_mail_early(
    pool: Pool, server: MailServer
) -> None:
    order = {"order_id": "x\r\nBcc: all@example.com", "amount_minor": 1, "currency": "CNY"}
    async with pool.acquire() as connection:
        values = order | {"name": "Li\n.\nRCPT TO:<all@example.com>"}
        await put_mail(connection, kind="order_paid", to=LI, language="en", values=values)
        with pytest.raises(AssertionError):
            await put_mail(
                connection, kind="reset", to=f"{LI}\nBcc: x@y.z", language="en", values=RESET
            )
    await mailer(pool, server).send_once()
    (mail,) = server.arrived
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Thank you for your order x Bcc: all@example.com"
    assert server.envelopes[0][1] == [LI]
    assert "RCPT TO:<all@example.com>" in mail.get_content()


async def test_a_stopped_mailer_gives_back_what_it_did_not_send(
    pool: Pool, server: MailServer
) -> None:
    await put(pool)
    stopped = mailer(pool, server)
    stopped.stop()
    await stopped.send_once()
    assert await states(pool) == [("waiting", 0)]
    assert await mailer(pool, server).send_once() == 1


async def test_in_a_demo_the_mail_is_printed_and_kept(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    await put(pool, language="en")
    await Mailer(pool, PrintSender()).send_once()
    assert "https://shop.example/reset?token=t0ken" in capsys.readouterr().out
    (mail,) = await list_mails(pool, rows_max=1)
    assert (mail.state, mail.content) == ("sent", RESET)


async def order(pool: Pool, user_id: str, number: int, *moves: tuple[str, str | None]) -> str:
    """An order that went through these states; its public id."""
    reservation_id = f"{number:020d}"
    await pool.execute(
        "INSERT INTO orders (sale_id, reservation_id, user_id, items, amount_minor, currency,"
        " status, reserved_at, reserved_until) VALUES ('shop', $1, $2, '{}', 129900, 'CNY',"
        " 'awaiting_payment', now(), now())",
        reservation_id,
        user_id,
    )
    for status, reason in moves:
        await pool.execute(
            "UPDATE orders SET status = $2, status_reason = $3 WHERE reservation_id = $1",
            reservation_id,
            status,
            reason,
        )
    return f"shop.{reservation_id}"


async def told(pool: Pool) -> list[tuple[str, str, Any]]:
    rows = await pool.fetch("SELECT kind, recipient, content FROM mails ORDER BY mail_id")
    return [(kind, to, content["order_id"]) for kind, to, content in rows]


async def test_buyers_with_a_proven_email_are_told_of_each_order_once(
    pool: Pool, server: MailServer
) -> None:
    li = await register(pool, LI)
    shy = await register(pool, "shy@example.com", verified=False)
    a = await order(pool, li, 1, ("paid", None), ("shipped", None), ("refunded", None))
    b = await order(pool, li, 2, ("cancelled", "oversold"))
    await order(pool, shy, 3, ("paid", None))
    await order(pool, "shop:77", 4, ("paid", None))  # The storefront tells its own users.
    await order(pool, li, 5, ("expired", None))
    await asyncio.gather(*(OrderMails(pool).write_once() for _ in range(3)))
    assert await OrderMails(pool).write_once() == 0
    assert await told(pool) == [
        ("order_paid", LI, a),
        ("order_shipped", LI, a),
        ("order_refunded", LI, a),
        ("order_cancelled", LI, b),
    ]
    await mailer(pool, server).send_once()
    texts = [mail.get_content() for mail in server.arrived]
    assert "CN¥1,299.00" in texts[0]
    assert "fewer items left" in texts[3]


async def test_an_order_that_is_stored_late_is_told_all_the_same(pool: Pool) -> None:
    li = await register(pool, LI)
    await order(pool, li, 1)
    async with pool.acquire() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute("UPDATE orders SET status = 'paid'")
        later = await order(pool, li, 2, ("cancelled", "by_buyer"))
        assert await OrderMails(pool).write_once() == 0  # Not past what may still come.
        await transaction.commit()
    assert await OrderMails(pool).write_once() == 2
    assert [kind for kind, _, _ in await told(pool)] == ["order_paid", "order_cancelled"]
    assert (await told(pool))[1][2] == later


async def test_the_language_is_that_of_the_checkout(pool: Pool) -> None:
    li = await register(pool, LI)
    await pool.execute(
        "INSERT INTO checkouts (sale_id, reservation_id, user_id, idempotency_key, request_hash,"
        " amount_minor, currency, quote, language, state)"
        " VALUES ('shop', $1, $2, 'k', '', 1, 'CNY', '{}', 'zh-CN', 'placed')",
        f"{1:020d}",
        li,
    )
    await order(pool, li, 1, ("paid", None))
    await OrderMails(pool).write_once()
    assert await pool.fetchval("SELECT language FROM mails") == "zh-CN"
