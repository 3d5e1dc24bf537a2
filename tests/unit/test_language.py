"""Everybody gets the language they like best of those there are."""

import pytest

from api.language import LANGUAGES, locale_of, negotiated, pick


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN", "zh-CN"),
        ("zh", "zh-CN"),
        ("zh-Hant-TW", "zh-CN"),
        ("ZH-cn", "zh-CN"),
        ("en-US,en;q=0.9", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("en;q=0.5, zh-CN;q=0.9", "zh-CN"),
        ("zh;q=0, en", "en"),
        ("fr-FR, zh;q=0.2", "zh-CN"),
        ("fr", "en"),
        ("*", "en"),
        ("zh;q=much", "en"),
        (";;,,q=", "en"),
        ("zh-CN" + "," * 10_000, "zh-CN"),
    ],
)
def test_the_language_is_the_one_liked_best(header: str, language: str) -> None:
    assert negotiated(header) == language


def test_a_name_is_given_in_another_language_rather_than_not_at_all() -> None:
    assert pick({"en": "Phone", "zh-CN": "手机"}, "zh-CN") == "手机"
    assert pick({"en": "Phone"}, "zh-CN") == "Phone"
    assert pick({"zh-CN": "手机"}, "en") == "手机"
    assert pick({"fr": "Téléphone"}, "en") == "Téléphone"
    assert pick({}, "en") == ""


def test_every_language_has_a_locale() -> None:
    assert [locale_of(language).language for language in LANGUAGES] == ["en", "zh"]
