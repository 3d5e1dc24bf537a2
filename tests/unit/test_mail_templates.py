"""Every mail can be written in every language, with no more than its kind must bring."""

from datetime import UTC, datetime
from importlib.resources import files

import pytest
from jinja2 import UndefinedError

from api.language import LANGUAGES
from api.mail.queue import NEEDED
from api.mail.templates import Mail, write

VALUES: dict[str, object] = {
    "name": "李雷",
    "token": "t0ken",
    "link": "https://shop.example/?token=t0ken",
    "order_id": "shop.00000000000000000001",
    "amount_minor": 129900,
    "currency": "CNY",
    "decision": "approved",
}


def mail(kind: str, language: str, content: dict[str, object]) -> Mail:
    return Mail(1, kind, "li@example.com", language, content, 1, datetime(2026, 11, 11, tzinfo=UTC))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", NEEDED)
def test_what_a_kind_must_bring_is_all_that_its_mail_needs(kind: str, language: str) -> None:
    content = {name: VALUES[name] for name in NEEDED[kind]}
    written = write(mail(kind, language, content))
    assert written.subject
    assert "{" not in written.text
    for name in NEEDED[kind] & {"name", "token", "link", "order_id"}:
        assert str(VALUES[name]) in written.subject + written.text
    for name in NEEDED[kind] & {"name", "link", "order_id"}:
        left = {other: value for other, value in content.items() if other != name}
        if name != "name" or kind in {"verify", "reset", "password_changed"}:
            with pytest.raises(UndefinedError):
                write(mail(kind, language, left))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["verify", "reset"])
def test_without_a_storefront_a_mail_tells_the_code_alone(kind: str, language: str) -> None:
    text = write(mail(kind, language, VALUES | {"link": ""})).text
    assert "t0ken" in text
    assert "http" not in text
    assert "\n\n\n" not in text


def test_there_is_no_template_that_no_mail_uses() -> None:
    names = {entry.name for entry in files("api.mail").joinpath("templates").iterdir()}
    assert names == {f"{kind}.{language}.txt" for kind in NEEDED for language in LANGUAGES}


@pytest.mark.parametrize(
    ("language", "currency", "shown"),
    [("en", "USD", "$1,299.00"), ("en", "JPY", "¥129,900"), ("zh-CN", "CNY", "¥1,299.00")],
)
def test_money_is_written_as_its_readers_write_it(language: str, currency: str, shown: str) -> None:
    content = VALUES | {"currency": currency}
    assert shown in write(mail("order_paid", language, content)).text


@pytest.mark.parametrize(
    ("reason", "said"),
    [("by_buyer", "as you asked"), ("payment_failed", "did not succeed"), ("other", "cancelled.")],
)
def test_why_an_order_was_cancelled_is_said_in_words(reason: str, said: str) -> None:
    written = write(mail("order_cancelled", "en", {"order_id": "x.y", "reason": reason}))
    assert said in written.text
    assert reason not in written.text or reason == "other"
