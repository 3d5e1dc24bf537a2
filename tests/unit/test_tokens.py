"""The fast lane for tokens says what PyJWT says, and both refuse what they must."""

import base64
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.tokens import TOKEN_SECONDS, Identity, Role, Tokens
from engine.clock import SystemClock

SECRET = "the-secret-of-this-test-32-characters"
tokens = Tokens(SECRET, SystemClock())
calm = settings(deadline=None)  # A busy machine may pause for longer; that is no disagreement.


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def make(claims: object, *, header: object = None, secret: str = SECRET) -> str:
    """A properly signed token of whatever is handed in."""
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    parts = [b64(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims)]
    signed = ".".join(parts)
    return f"{signed}.{b64(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"


def fast(token: str) -> Identity | None:
    return tokens.read_fast(token.encode())


def good_claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"sub": "u1", "role": "buyer", "exp": now + 3600, "iat": now} | changes


def test_a_token_says_who_it_was_issued_to() -> None:
    token = tokens.issue("somebody@example.com", Role.OPERATOR)
    assert tokens.read(token) == Identity("somebody@example.com", Role.OPERATOR)


def test_our_own_tokens_take_the_fast_lane() -> None:
    assert fast(tokens.issue("u1")) == Identity("u1", Role.BUYER)


@pytest.mark.parametrize(
    "claims",
    [
        good_claims() | {"aud": None},
        {"sub": "u1", "exp": int(time.time()) + 86_400},
        good_claims(exp=time.time() + 86_400.5),
        good_claims(jti="x"),
    ],
)
def test_a_storefront_may_write_its_tokens_in_its_own_way(claims: dict[str, Any]) -> None:
    token = make(claims, header={"typ": "JWT", "alg": "HS256", "kid": "1"})
    assert fast(token) is None
    assert tokens.read(token) == Identity("u1", Role.BUYER)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "garbage",
        "a.b.c",
        "....",
        "é.é.é",
        "x" * 5000,
        make(good_claims(exp=int(time.time()) - 60)),
        make(good_claims(iat=int(time.time()) + 86_400)),
        make(good_claims(nbf=int(time.time()) + 86_400)),
        make(good_claims(), secret="another-secret-of-32-characters-long"),
        make({k: v for k, v in good_claims().items() if k != "exp"}),
        make({k: v for k, v in good_claims().items() if k != "sub"}),
        make(good_claims(sub=7)),
        make(good_claims(sub="")),
        make(good_claims(sub="two words")),
        make(good_claims(sub="x" * 129)),
        make(good_claims(sub="line\nbreak")),
        make(good_claims(role="emperor")),
        make(good_claims(role=["operator"])),
        make(good_claims(aud="someone else")),
        make([good_claims()]),
        make("text"),
        jwt.encode(good_claims(), "", algorithm="none"),
        make(good_claims(), header={"alg": "none", "typ": "JWT"}),
        make(good_claims(), header={"alg": "HS384", "typ": "JWT"}),
        make(good_claims(), header={"alg": "hs256", "typ": "JWT"}),
        jwt.encode(good_claims(), SECRET * 2, algorithm="HS512"),
        jwt.encode(good_claims(), SECRET * 2, algorithm="HS256"),
        tokens.issue("u1") + ".extra",
        tokens.issue("u1")[:-1],
        "." + tokens.issue("u1"),
    ],
)
def test_everything_else_is_nobody(token: str) -> None:
    assert tokens.read(token) is None


@pytest.mark.parametrize("exp", [10**30, 10**400, float("inf")])
def test_a_time_beyond_all_clocks_is_read_without_a_fault(exp: float) -> None:
    for header in (None, {"alg": "HS256"}):
        token = make(good_claims(exp=exp), header=header)
        found = tokens.user_until(token.encode())
        assert found is None or tokens.read(token) is not None


def test_user_and_end_are_those_of_the_claims_whoever_made_the_token() -> None:
    claims = good_claims()
    for header in (None, {"alg": "HS256"}, {"typ": "JWT", "alg": "HS256", "kid": "7"}):
        assert tokens.user_until(make(claims, header=header).encode()) == ("u1", claims["exp"])
    assert tokens.user_until(make(claims, secret="x" * 32).encode()) is None
    assert tokens.user_until(make(good_claims(exp=1), header={"alg": "HS256"}).encode()) is None


def test_a_token_ends() -> None:
    assert tokens.read(tokens.issue("u1", seconds=0)) is None
    assert fast(tokens.issue("u1", seconds=0)) is None
    assert tokens.read_slow(tokens.issue("u1", seconds=0)) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
times = st.integers(-100, 100).map(lambda offset: int(time.time()) + offset * 3600)
claim_sets = st.fixed_dictionaries(
    {},
    optional={
        "sub": st.text(max_size=6) | json_values,
        "role": st.sampled_from(["buyer", "operator", "support", "root"]) | json_values,
        "exp": times | json_values,
        "iat": times | json_values,
        "nbf": times | json_values,
        "aud": json_values,
        "jti": json_values,
        "crit": json_values,
    },
)


def assert_lanes_agree(token: str) -> None:
    quick, slow = fast(token), tokens.read_slow(token)
    assert quick is None or quick == slow, (token, quick, slow)
    assert tokens.read(token) == slow


@calm
@given(claim_sets)
def test_both_lanes_agree_on_signed_claims_of_any_kind(claims: dict[str, Any]) -> None:
    assert_lanes_agree(make(claims))


@calm
@given(st.data())
def test_both_lanes_agree_on_mutated_tokens(data: st.DataObject) -> None:
    token = list(tokens.issue("u1"))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(token) - 1))
        mutation = data.draw(st.sampled_from(["replace", "drop", "insert", "cut"]))
        letter = data.draw(st.sampled_from("ABab01-_.=+/ \n{"))
        match mutation:
            case "replace":
                token[at] = letter
            case "drop" if len(token) > 1:
                del token[at]
            case "insert":
                token.insert(at, letter)
            case "cut" if at:
                del token[at:]
    assert_lanes_agree("".join(token))


@calm
@given(st.binary(max_size=80))
def test_both_lanes_agree_on_signed_bytes_that_are_no_json(payload: bytes) -> None:
    assert_lanes_agree(sign(b64(payload)))


@calm
@given(st.data())
def test_both_lanes_agree_on_claims_that_were_signed_in_a_broken_encoding(
    data: st.DataObject,
) -> None:
    segment = list(tokens.issue("\u00ff?>~").split(".")[1])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(segment)))
        segment[at : at + data.draw(st.integers(0, 1))] = data.draw(
            st.text("+/=-_Ab!. \n", max_size=3)
        )
    assert_lanes_agree(sign("".join(segment)))


@pytest.mark.parametrize("tail", ["=", "==", "+", "/", "\n", "!"])
def test_both_lanes_agree_on_stray_letters_in_signed_claims(tail: str) -> None:
    for user in ("u", "u1", "u12"):  # Every length of padding.
        assert_lanes_agree(sign(tokens.issue(user).split(".")[1] + tail))


def sign(segment: str) -> str:
    """A token of our encoder's header and this claims segment, with a good signature."""
    signed = f"{tokens.issue('u1').partition('.')[0]}.{segment}"
    return f"{signed}.{b64(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"


class Ended:
    """Revokes what u1 was given before a certain second."""

    def __init__(self, first: int) -> None:
        self._first = first

    def concerns(self, user_id: str) -> bool:
        return user_id == "u1"

    def is_revoked(self, user_id: str, issued_at: float) -> bool:
        return user_id == "u1" and issued_at < self._first


def test_what_was_given_before_a_user_logged_out_everywhere_is_void_in_every_lane() -> None:
    now = int(time.time())
    tokens = Tokens(SECRET, SystemClock(), Ended(now + 1))
    before = good_claims()
    for header in (None, {"alg": "HS256"}):
        for claims in (before, {"sub": "u1", "exp": now + 60}):  # One tells no time at all.
            token = make(claims, header=header)
            assert tokens.read(token) is None
            assert tokens.read_slow(token) is None
            assert tokens.user_until(token.encode()) is None
        others = make(good_claims(sub="u2"), header=header)
        assert tokens.read(others) == Identity("u2", Role.BUYER)
        assert tokens.user_until(others.encode()) is not None


def test_a_token_given_in_the_second_of_the_logout_is_of_the_next_one_and_good() -> None:
    now = int(time.time())
    tokens = Tokens(SECRET, SystemClock(), Ended(now + 1))
    fresh = tokens.issue("u1", issued_at=now + 1)
    assert tokens.read(fresh) == Identity("u1", Role.BUYER)
    assert tokens.user_until(fresh.encode()) == ("u1", now + 1 + TOKEN_SECONDS)
