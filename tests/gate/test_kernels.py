"""The compiled kernels do what their plain forms do, whatever they are given."""

import logging
import re
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ext.batch
import ext.ids
import ext.plain.batch
import ext.plain.ids
import ext.plain.records
import ext.plain.throttle
import ext.plain.tokens
import ext.records
import ext.throttle
import ext.tokens
from api.answers import PERSONAL, Answer
from api.tokens import Tokens
from api.written import as_bytes, head_of
from benchmarks.doors import make_straight_path
from engine.clock import ManualClock, SystemClock

KEY = b"a-secret-for-tests-of-32-characters"
HEADER = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
batches = st.sampled_from([ext.batch.ReserveBatch, ext.plain.batch.ReserveBatch])
FORMS: list[Any] = [ext.batch.ReserveBatch, ext.plain.batch.ReserveBatch]


class Waiter:
    """Notes what it is told; `broken` ones raise."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.told: list[Any] = []

    def replied(self, until_s: bytes, reply: bytes) -> None:
        self._note((until_s, reply))

    def failed(self, error: Exception) -> None:
        self._note(error)

    def _note(self, told: Any) -> None:
        self.told.append(told)
        if self.broken:
            raise RuntimeError("broken")


tickets = st.just(0) | st.integers(-1, 1 << 24)
reservations_made = st.lists(st.tuples(words, words, words, tickets), max_size=300)


@given(reservations_made, st.binary(max_size=50))
def test_both_pack_the_same_call(
    reservations: list[tuple[str, str, str, int]], prefix: bytes
) -> None:
    packed = []
    for form in FORMS:
        batch = form()
        for texts in reservations:
            batch.add(Waiter(), *texts)
        assert len(batch) == len(reservations)
        packed.append(batch.command(prefix, 7))
    assert packed[0] == packed[1]


@pytest.mark.parametrize("form", FORMS)
def test_a_waiter_that_fails_harms_no_neighbour(
    form: Any, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("gone")
    for fail in (False, True):
        waiters = [Waiter(broken=number == 1) for number in range(3)]
        batch = form()
        for waiter in waiters:
            batch.add(waiter, "ü", "r", "a*1")
        with caplog.at_level(logging.CRITICAL, "ext"):
            if fail:
                batch.fail(error)
            else:
                batch.reply(b"17", [b"a", b"b", b"c"])
        expected: list[Any] = [(b"17", reply) for reply in (b"a", b"b", b"c")]
        assert (
            [waiter.told for waiter in waiters] == [[error]] * 3
            if fail
            else [[each] for each in expected]
        )


@pytest.mark.parametrize("form", FORMS)
def test_replies_in_another_number_reach_nobody(form: Any) -> None:
    waiter = Waiter()
    batch = form()
    batch.add(waiter, "u", "r", "a*1")
    for replies in ([], [b"a", b"b"]):
        with pytest.raises(ValueError, match="replies to 1"):
            batch.reply(b"17", replies)
    assert waiter.told == []


compiled_verifier = ext.tokens.TokenVerifier(KEY, HEADER)
plain_verifier = ext.plain.tokens.TokenVerifier(KEY, HEADER)


def assert_alike(token: bytes) -> None:
    assert compiled_verifier.claims(token) == plain_verifier.claims(token), token


@given(st.binary(max_size=200))
def test_both_refuse_what_is_no_token(token: bytes) -> None:
    assert compiled_verifier.claims(token) is None
    assert plain_verifier.claims(token) is None
    assert_alike(HEADER + token)


@given(words, st.data())
def test_both_read_genuine_tokens_and_no_spoilt_ones(user: str, data: st.DataObject) -> None:
    token = Tokens(KEY.decode(), SystemClock()).issue(user).encode()
    assert compiled_verifier.claims(token) == plain_verifier.claims(token) != None  # noqa: E711
    at = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.integers(0, 255))
    assert_alike(token[:at] + bytes([byte]) + token[at + 1 :])
    for spoilt in (token[:at], token[:at] + token[at + 1 :], token + b"=", token + b"=="):
        assert compiled_verifier.claims(spoilt) is None
        assert plain_verifier.claims(spoilt) is None


@given(st.binary(max_size=80))
def test_both_open_the_same_claims_under_a_genuine_signature(claims: bytes) -> None:
    """Whatever stands where the claims stand, padding and wrong letters included."""
    signed = HEADER + claims
    import base64
    import hmac

    signature = hmac.digest(KEY, signed, "sha256")
    token = signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
    assert_alike(token)


@given(words, words, words)
def test_both_make_the_same_reservation_ids(sale: str, user: str, key: str) -> None:
    made = ext.ids.make_reservation_id(sale, user, key)
    assert made == ext.plain.ids.make_reservation_id(sale, user, key)
    assert len(made) == 20


lines = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.tuples(st.binary(min_size=20, max_size=20), st.binary(max_size=9), st.binary(max_size=9))
        .map(b" ".join),
    ),
    max_size=6,
).map(b"\n".join)  # fmt: skip


@given(lines)
def test_both_split_the_same_batches(batch: bytes) -> None:
    def split(form: Any) -> Any:
        columns: tuple[Any, ...] = ([], [], [], {})
        try:
            return form.split_batch(batch, *columns), columns
        except ValueError:
            return "refused"

    assert split(ext.records) == split(ext.plain.records)


class Claims(NamedTuple):
    sub: str
    exp: float
    iat: float


@given(
    st.text(st.characters(max_codepoint=300), max_size=130),
    st.integers(90, 110) | st.floats(90, 110) | st.just(10**400),
    st.integers(90, 110),
)
def test_both_say_alike_whose_a_genuine_token_is_and_until_when(
    user: str, exp: float, iat: float
) -> None:
    token = Tokens(KEY.decode(), SystemClock()).issue("anybody").encode()

    def said(verifier: Any) -> object:
        return verifier.user_until(token, lambda _: Claims(user, exp, iat), 100.0, 105.0)

    assert said(compiled_verifier) == said(plain_verifier)


def test_claims_that_nobody_can_read_make_nobody() -> None:
    token = Tokens(KEY.decode(), SystemClock()).issue("anybody").encode()

    def broken(_: bytes) -> Claims:
        raise ValueError("no claims")

    for verifier in (compiled_verifier, plain_verifier):
        assert verifier.user_until(token, broken, 100.0, 105.0) is None
        assert verifier.user_until(token[:-1] + b"!", broken, 100.0, 105.0) is None


visits = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from(["a", "b"]), st.integers(-50, 400)),
    max_size=80,
)


@given(visits, st.integers(1, 5), st.floats(0.5, 50))
def test_both_throttle_alike(
    visits: list[tuple[str, str, int]], burst: int, per_second: float
) -> None:
    """Twelve clients in two kinds for one set of eight places, and a clock that may step back."""
    clock = ManualClock()
    tables: list[Any] = [ext.throttle.ClientTable(8), ext.plain.throttle.ClientTable(8)]
    forms: list[dict[str, Any]] = [
        {
            kind: module.Throttle(table, kind, clock, per_second=rate, burst=burst)
            for kind, rate in (("a", per_second), ("b", 2 * per_second))
        }
        for module, table in zip((ext.throttle, ext.plain.throttle), tables, strict=True)
    ]
    for client, kind, later_ms in visits:
        clock.advance(seconds=later_ms / 1000)
        compiled, plain = (form[kind].admit(client) for form in forms)
        assert compiled == plain
        compiled, plain = (form[kind].state(client) for form in forms)
        assert compiled == plain
        assert len(tables[0]) == len(tables[1]) <= 8


@given(st.binary(max_size=300), st.sampled_from(["", "/v1/reservations/demo.AAAA"]))
def test_both_write_the_same_answer(body: bytes, location: str) -> None:
    answer = Answer(200, body, PERSONAL, "", location)
    written = make_straight_path().written(head_of(200, PERSONAL), location, body)
    name = re.search(rb"X-Request-Id: ([^\r]+)", written)
    assert name is not None
    date = re.compile(rb"Date: [^\r]+")  # The second may have changed in between.
    assert date.sub(b"", written) == date.sub(b"", as_bytes(answer, name[1].decode()))
