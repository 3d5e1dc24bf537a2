"""The draw: anyone can draw again what was drawn, and every order is as likely as any other."""

import hashlib
import math
import struct
from collections import Counter
from importlib import import_module
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.admission.room.draw import Finding, Verdict, draw, seed_hash, verify

plain = import_module("ext.plain.draw")
SEED = bytes(range(32))
seeds = st.binary(min_size=32, max_size=32)


def drawn_by_the_book(seed: bytes, count: int) -> list[int]:
    """The published description, word by word: written from engine/admission/room/draw.py's text."""
    words: list[int] = []
    counter = 0
    used = 0
    places = list(range(1, count + 1))
    for i in range(count - 1, 0, -1):
        ceiling = (2**32 // (i + 1)) * (i + 1)
        while True:
            if used == len(words):
                digest = hashlib.sha256(seed + struct.pack(">Q", counter)).digest()
                words.extend(struct.unpack(">8I", digest))
                counter += 1
            word = words[used]
            used += 1
            if word < ceiling:
                break
        j = word % (i + 1)
        places[i], places[j] = places[j], places[i]
    return places


@given(seeds, st.integers(0, 600))
def test_whoever_has_the_seed_draws_the_same_places(seed: bytes, count: int) -> None:
    assert list(draw(seed, count)) == drawn_by_the_book(seed, count)
    assert list(plain.draw(seed, count)) == drawn_by_the_book(seed, count)


def test_a_long_draw_gives_every_number_one_place() -> None:
    places = draw(SEED, 200_000)
    assert sorted(places) == list(range(1, 200_001))
    assert list(places) == drawn_by_the_book(SEED, 200_000)


def test_every_order_of_four_is_as_likely_as_any_other() -> None:
    draws = 24_000
    seen = Counter(tuple(draw(n.to_bytes(32, "big"), 4)) for n in range(draws))
    assert set(seen) == set(permutations(range(1, 5)))
    expected = draws / 24
    chi_squared = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_squared < 49.7  # 23 degrees of freedom, one fair draw in a thousand is above.


def test_coming_early_is_worth_nothing() -> None:
    places = draw(SEED, 100_000)
    early = sum(places[:10_000]) / 10_000
    deviation = 100_000 / math.sqrt(12 * 10_000)
    assert abs(early - 50_000) < 5 * deviation


def test_an_honest_draw_is_found_honest() -> None:
    place = draw(SEED, 1000)[41]
    assert verify(SEED, seed_hash(SEED), 1000, 42, place) == Verdict(Finding.HONEST, place)
    assert verify(SEED, seed_hash(SEED).upper(), 1000, 42, place).finding is Finding.HONEST


def test_who_came_after_the_draw_stands_behind_it() -> None:
    assert verify(SEED, seed_hash(SEED), 1000, 1001, 1001) == Verdict(Finding.HONEST, 1001)
    assert verify(SEED, seed_hash(SEED), 1000, 1001, 5) == Verdict(Finding.OTHER_PLACE, 1001)


def test_a_seed_changed_afterwards_is_found() -> None:
    place = draw(SEED, 10)[0]
    assert verify(SEED, seed_hash(bytes(32)), 10, 1, place) == Verdict(Finding.OTHER_SEED, None)


def test_a_place_changed_afterwards_is_found() -> None:
    place = draw(SEED, 10)[0]
    assert verify(SEED, seed_hash(SEED), 10, 1, place % 10 + 1) == Verdict(
        Finding.OTHER_PLACE, place
    )


def test_another_count_of_people_is_another_draw() -> None:
    place = draw(SEED, 1000)[41]
    assert verify(SEED, seed_hash(SEED), 1001, 42, place).finding is Finding.OTHER_PLACE


@pytest.mark.parametrize(
    ("seed", "drawn", "number"),
    [(b"short", 10, 1), (SEED, 10, 0), (SEED, -1, 1), (SEED, (1 << 24) + 1, 1)],
)
def test_what_is_no_draw_is_said_to_be_none(seed: bytes, drawn: int, number: int) -> None:
    assert verify(seed, seed_hash(seed), drawn, number, 1) == Verdict(Finding.MALFORMED, None)
