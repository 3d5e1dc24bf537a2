"""What a visitor types becomes what Postgres looks for, whatever it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.search.correction import errors_between
from api.search.lexemes import quoted
from api.search.query import TERMS_MAX, read_wish


def test_words_of_both_scripts_are_all_wanted() -> None:
    wish = read_wish("蓝牙 headphones")
    assert wish.han == "('蓝牙')"
    assert wish.other == "headphones"
    assert wish.is_ranking


def test_a_run_is_found_by_its_words_or_by_its_pairs() -> None:
    assert read_wish("小米手机").han == "('小米' & '手机' | '小米' & '米手' & '手机')"


def test_quotes_ask_for_neighbours_and_a_minus_for_absence() -> None:
    wish = read_wish('"noise cancelling" -red -红色 “蓝牙耳机”')
    assert wish.other == '"noise cancelling" -"red"'
    assert wish.han == "!('红色') & ('蓝牙' & '牙耳' & '耳机')"
    assert "red" not in wish.any_other


def test_a_hyphen_within_a_word_is_no_minus() -> None:
    assert read_wish("usb-c").other == "usb c"


def test_or_is_a_word_like_others() -> None:
    assert read_wish("black or white").other == 'black "or" white'


@pytest.mark.parametrize(
    "text", ["", "   ", "!!! & | ()", "-", '"', "“”", "😀 🎉", "的", "<->", ":*"]
)
def test_what_holds_no_word_is_empty(text: str) -> None:
    assert read_wish(text).is_empty


def test_no_more_terms_than_the_bound_are_looked_for() -> None:
    wish = read_wish(" ".join(f"word{n}" for n in range(100)))
    assert len(wish.other.split()) == TERMS_MAX


@given(st.text(max_size=200))
def test_no_text_is_refused(text: str) -> None:
    wish = read_wish(text)
    assert wish.is_empty or wish.han or wish.other


def test_a_lexeme_cannot_leave_its_quotes() -> None:
    assert quoted("a'b\\c") == "'a''b\\\\c'"


@pytest.mark.parametrize(
    ("typed", "meant", "errors"),
    [
        ("headphnes", "headphones", 1),
        ("headpohnes", "headphones", 1 + 0),
        ("phone", "phone", 0),
        ("keybord", "keyboard", 1),
        ("", "abc", 3),
    ],
)
def test_typing_errors_are_counted_with_swapped_letters_as_one(
    typed: str, meant: str, errors: int
) -> None:
    assert errors_between(typed, meant) == errors
