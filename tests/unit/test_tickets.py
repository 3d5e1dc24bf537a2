"""Queue tickets: what was signed is read, and nothing else is."""

import base64
import hmac
import json
from importlib import import_module
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.tokens import Tokens
from engine.admission.room.tickets import ticket_key
from engine.clock import ManualClock, SystemClock

compiled = import_module("ext.tickets")
plain = import_module("ext.plain.tickets")

SECRET = "the-secret-of-this-test-32-characters"
KEY = b"a key of thirty-two bytes or so."
NOW = 1_700_000_000
HEADER = b"eyJhbGciOiJIUzI1NiIsInR5cCI6InRpY2tldCtqd3QifQ."

users = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128)
numbers = st.integers(1, 1 << 24)
times = st.integers(0, 10**12)


@pytest.fixture(params=[compiled, plain], ids=["compiled", "plain"])
def kernel(request: pytest.FixtureRequest) -> Any:
    return request.param


def sign(key: Any, **changes: Any) -> bytes:
    claims = {
        "sale_id": "double-11",
        "user_id": "u1",
        "number": 7,
        "issued_s": NOW,
        "expires_s": NOW + 300,
        "eta_s": 60,
        "admitted": False,
    } | changes
    token: bytes = key.sign(*claims.values())
    return token


def forge(claims: bytes, key: bytes = KEY, header: bytes = HEADER) -> bytes:
    """A properly signed token of whatever is handed in."""
    signed = header + base64.urlsafe_b64encode(claims).rstrip(b"=")
    digest = hmac.digest(key, signed, "sha256")
    return signed + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")


def claims_of(ticket: Any) -> tuple[Any, ...]:
    return (
        ticket.sale_id,
        ticket.user_id,
        ticket.number,
        ticket.issued_s,
        ticket.expires_s,
        ticket.eta_s,
        ticket.admitted,
    )


@given(users, numbers, st.tuples(times, times), st.none() | st.integers(0, 10**9), st.booleans())
def test_both_forms_sign_alike_and_read_what_was_signed(
    user: str, number: int, period: tuple[int, int], eta: int | None, admitted: bool
) -> None:
    claims = ("double-11", user, number, *period, -1 if eta is None else eta, admitted)
    token = compiled.TicketKey(KEY).sign(*claims)
    assert token == plain.TicketKey(KEY).sign(*claims)
    for kernel in (compiled, plain):
        read = kernel.TicketKey(KEY).read(token)
        assert claims_of(read) == ("double-11", user, number, *period, eta, admitted)


def test_anybody_with_the_key_and_a_library_can_read_a_ticket(kernel: Any) -> None:
    token = sign(kernel.TicketKey(KEY), expires_s=NOW + 10**9)
    claims = jwt.decode(token, KEY, algorithms=["HS256"])
    assert claims == {
        "sale": "double-11",
        "num": 7,
        "sub": "u1",
        "iat": NOW,
        "exp": NOW + 10**9,
        "eta": 60,
        "adm": False,
    }
    assert jwt.get_unverified_header(token)["typ"] == "ticket+jwt"


@given(st.data())
def test_a_ticket_edited_anywhere_is_no_ticket(data: st.DataObject) -> None:
    token = sign(compiled.TicketKey(KEY))
    at = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != token[at]))
    edited = token[:at] + bytes([byte]) + token[at + 1 :]
    assert compiled.TicketKey(KEY).read(edited) is None
    assert plain.TicketKey(KEY).read(edited) is None


def test_a_lower_number_under_the_old_signature_is_no_ticket(kernel: Any) -> None:
    key = kernel.TicketKey(KEY)
    head, _, signature = sign(key).rpartition(b".")
    lower = sign(key, number=1).rpartition(b".")[0]
    assert head != lower
    assert key.read(lower + b"." + signature) is None


@pytest.mark.parametrize("token", [b"", b".", b"x" * 44, HEADER, HEADER + b"." * 44, b"\xff" * 300])
def test_what_is_no_token_is_no_ticket(kernel: Any, token: bytes) -> None:
    assert kernel.TicketKey(KEY).read(token) is None


@given(st.binary(max_size=1200))
def test_garbage_behind_the_header_is_refused(rest: bytes) -> None:
    assert compiled.TicketKey(KEY).read(HEADER + rest) is None
    assert plain.TicketKey(KEY).read(HEADER + rest) is None


def test_none_is_no_ticket(kernel: Any) -> None:
    assert kernel.TicketKey(KEY).read(None) is None


def test_another_engines_ticket_is_no_ticket(kernel: Any) -> None:
    assert kernel.TicketKey(b"another key").read(sign(kernel.TicketKey(KEY))) is None


@pytest.mark.parametrize(
    "changed",
    [
        b'{"sale":"double-11","num":0,"sub":"u1","iat":1,"exp":2,"eta":3,"adm":true}',
        b'{"sale":"double-11","num":16777217,"sub":"u1","iat":1,"exp":2,"eta":3,"adm":true}',
        b'{"sale":"double-11","num":-7,"sub":"u1","iat":1,"exp":2,"eta":3,"adm":true}',
        b'{"sale":"double-11","num":7,"sub":"","iat":1,"exp":2,"eta":3,"adm":true}',
        b'{"sale":"double-11","num":7,"sub":"u1","iat":1,"exp":2,"eta":3,"adm":true} ',
        b'{"sale":"double-11","num":7,"sub":"u1","iat":1,"exp":2,"eta":3,"adm":1}',
        b'{"sale":"double-11","num":7,"sub":"u1\\',
        b'{"sub":"u1","exp":99999999999,"iat":1,"role":"buyer"}',
        b"null",
        b"{}",
    ],
)
def test_claims_in_any_other_form_are_refused_even_when_signed(kernel: Any, changed: bytes) -> None:
    assert kernel.TicketKey(KEY).read(forge(changed)) is None


def test_the_same_claims_in_our_form_are_read_so_the_test_above_can_fail(kernel: Any) -> None:
    good = b'{"sale":"double-11","num":7,"sub":"u1","iat":1,"exp":2,"eta":3,"adm":true}'
    assert kernel.TicketKey(KEY).read(forge(good)).admitted
    unsecured = base64.urlsafe_b64encode(b'{"alg":"none","typ":"ticket+jwt"}').rstrip(b"=") + b"."
    assert kernel.TicketKey(KEY).read(forge(good, header=unsecured)) is None


def test_an_access_token_is_no_ticket_and_a_ticket_no_access_token() -> None:
    tokens, tickets = Tokens(SECRET, SystemClock()), ticket_key(SECRET)
    access = tokens.issue("u1").encode()
    assert tickets.read(access) is None
    ticket = sign(tickets, expires_s=10**11)
    assert tickets.read(ticket) is not None
    assert tokens.read(ticket.decode()) is None
    # Not even where somebody signs tickets with the secret itself.
    careless = compiled.TicketKey(SECRET.encode())
    assert careless.read(access) is None
    assert Tokens(SECRET, ManualClock(NOW * 1000)).read_fast(sign(careless)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 0},
        {"number": (1 << 24) + 1},
        {"user_id": ""},
        {"user_id": "x" * 129},
        {"sale_id": ""},
        {"sale_id": "x" * 49},
    ],
)
def test_what_could_not_be_read_again_is_not_signed(kernel: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a ticket's"):
        sign(kernel.TicketKey(KEY), **changes)


def test_the_longest_names_fit(kernel: Any) -> None:
    longest = {"sale_id": "s" * 48, "user_id": '"' * 128, "number": 1 << 24, "eta_s": 10**9}
    key = kernel.TicketKey(KEY)
    assert key.read(sign(key, **longest)).user_id == '"' * 128
    assert json.loads(base64.urlsafe_b64decode(sign(key, **longest).split(b".")[1] + b"=="))


def test_a_marks_hash_is_siphash() -> None:
    # The vector of the paper's appendix A.
    assert compiled.siphash_of(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5
    assert compiled.siphash_of(bytes(range(16)), b"") == 0x726FDB47DD0E0E31
    with pytest.raises(ValueError, match="16 bytes"):
        compiled.siphash_of(b"short", b"")
