"""Text cut into words, and what a name says a thing is."""

import pytest

from api.search.words import cut_coarse, cut_fine, cut_name, cut_text, fold, gaps_of, pairs_of


def test_full_width_letters_and_capitals_read_the_same() -> None:
    assert fold("ＰＨＯＮＥ　１５ Pro") == "phone 15 pro"


def test_a_document_has_the_words_within_words_and_a_query_does_not() -> None:
    assert cut_coarse("智能手机") == ["智能手机"]
    assert {"智能", "手机", "智能手机"} <= set(cut_fine("智能手机"))


def test_particles_are_no_words() -> None:
    assert "的" not in cut_coarse("透明的手机壳")


def test_pairs_cover_a_run_and_a_single_character_has_none() -> None:
    assert list(pairs_of("手机壳")) == ["手机", "机壳"]
    assert list(pairs_of("茶")) == []


def test_words_that_differ_in_one_character_share_a_gap() -> None:
    assert set(gaps_of("耳机")) & set(gaps_of("耳几")) == {"耳_"}
    assert not set(gaps_of("耳机")) & set(gaps_of("手表"))


def test_scripts_are_kept_apart_and_punctuation_is_dropped() -> None:
    words = cut_text("USB-C 充电线 (2m) — café")
    assert set(words.han) >= {"充电"}
    assert words.other == ("usb", "c", "2m", "café")


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("Leather case for phone 15", {"case"}),
        ("Aurora X1 smartphone, black", {"smartphone", "black"}),
        ("Headphones", {"headphones"}),
        ("Aurora 15 Pro", {"pro"}),
        ("256 512", set()),
    ],
)
def test_an_english_name_says_what_the_thing_is_before_what_it_is_for(
    name: str, heads: set[str]
) -> None:
    assert set(cut_name(name).other_heads) == heads


def test_a_chinese_name_says_what_the_thing_is_at_its_end() -> None:
    assert "手机" in cut_name("极光折叠手机").han_heads
    case = cut_name("极光透明手机壳").han_heads
    assert "壳" in case
    assert "手机" not in case
