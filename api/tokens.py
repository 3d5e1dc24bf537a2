"""Signs and reads access tokens: JWT, HS256, with the claims sub, role, exp and iat (RFC 7519).

Says who a caller is. What a caller may do is decided where it is done.
"""

from enum import StrEnum
from typing import Any, Final, Protocol, cast

import jwt
import msgspec

from engine.clock import Clock
from engine.model import USER_ID
from ext import TokenVerifier

ALGORITHM: Final = "HS256"
TOKEN_SECONDS: Final = 12 * 3600  # Of tokens minted by hand; a session's are a setting.
SKEW_SECONDS_MAX: Final = 5  # A storefront that mints tokens may have a clock that is ahead.
TOKEN_LENGTH_MAX: Final = 4096


class Role(StrEnum):
    """What a caller is. Everything that is not granted to a role is denied."""

    BUYER = "buyer"
    OPERATOR = "operator"
    SUPPORT = "support"


class Identity(msgspec.Struct, frozen=True, gc=False):
    """A caller whose token was verified."""

    user_id: str
    role: Role


class _Claims(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The claims our own encoder writes. The fast lane reads these and no others."""

    sub: str
    exp: int
    iat: int
    role: Role = Role.BUYER


_BUYER: Final = Role.BUYER.value
_ROLES: Final = {role.value: role for role in Role}
_decode: Final = msgspec.json.Decoder(_Claims).decode  # Its errors are ValueErrors.


class Revoked(Protocol):
    """Which tokens are void before they expire (see api/users/revocations.py)."""

    def is_revoked(self, user_id: str, issued_at: float) -> bool: ...
    def concerns(self, user_id: str) -> bool: ...


class Tokens:
    """Issues and reads tokens signed with one secret. Without `revoked`, none is ever void."""

    def __init__(self, secret: str, clock: Clock, revoked: Revoked | None = None) -> None:
        self._secret = secret
        self._clock = clock
        self._revoked = revoked
        self._pyjwt = jwt.PyJWT()
        # What our encoder puts before the claims, the dot included.
        self._header = self.issue("nobody").partition(".")[0].encode() + b"."
        self._verifier = TokenVerifier(secret.encode(), self._header)

    def issue(
        self,
        user_id: str,
        role: Role = Role.BUYER,
        seconds: int = TOKEN_SECONDS,
        *,
        issued_at: int | None = None,
    ) -> str:
        """A token that is valid for `seconds` from `issued_at` on; if that is not said, from now on.

        It may be the second to come, within SKEW_SECONDS_MAX: a user who just changed his password
        logs in at once.
        """
        iat = self._clock.now_ms() // 1000 if issued_at is None else issued_at
        claims = {"sub": user_id, "role": role.value, "exp": iat + seconds, "iat": iat}
        return self._pyjwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def read(self, token: str) -> Identity | None:
        """Whose token it is; None if it is forged, expired, of another kind, or no token at all.

        Costs 2 µs for tokens with our encoder's header, 28 µs for others: PyJWT reads those.
        """
        if len(token) > TOKEN_LENGTH_MAX or not token.isascii():
            return None
        return self.read_fast(token.encode()) or self._read_other(token)

    def read_fast(self, token: bytes) -> Identity | None:
        """Accepts a part of what `read_slow` accepts, with the same result. None says: ask PyJWT."""
        claims = self._verified(token)
        return None if claims is None else _identity(claims.sub, claims.role)

    def user_until(self, token: bytes) -> tuple[str, int] | None:
        """The user, and when the token ends in seconds since the Unix epoch. None may mean: ask `read`.

        For those who remember the answer: a token with another header than ours costs PyJWT's price.
        """
        if len(token) > TOKEN_LENGTH_MAX:
            return None
        now_s = self._clock.now_ms() / 1000
        found = self._verifier.user_until(token, _decode, now_s, now_s + SKEW_SECONDS_MAX)
        if found is not None and self._revoked is not None and self._revoked.concerns(found[0]):
            return None if self._verified(token) is None else found
        if found is not None or token.startswith(self._header):
            return found
        return self._foreign_until(token)

    def _foreign_until(self, token: bytes) -> tuple[str, int] | None:
        claims = self._read_claims(token.decode()) if token.isascii() else None
        identity = None if claims is None else _identity(claims["sub"], claims.get("role", _BUYER))
        if claims is None or identity is None:
            return None
        return identity.user_id, int(claims["exp"])  # A fraction of a second is not granted.

    def _read_other(self, token: str) -> Identity | None:
        """What `read_fast` did not accept: forged, or of another making."""
        ours = token.encode()
        if ours.startswith(self._header) and not self._verifier.is_genuine(ours):
            return None  # Forged. PyJWT would only hash it once more, at thirty times the cost.
        return self.read_slow(token)

    def _verified(self, token: bytes) -> _Claims | None:
        text = self._verifier.claims(token) if len(token) <= TOKEN_LENGTH_MAX else None
        if text is None:
            return None
        try:
            claims = _decode(text)
        except ValueError:
            return None
        now_s = self._clock.now_ms() / 1000
        if claims.exp <= now_s or claims.iat > now_s + SKEW_SECONDS_MAX:
            return None
        return None if self._is_void(claims.sub, claims.iat) else claims

    def read_slow(self, token: str) -> Identity | None:
        """What PyJWT says. It asks the machine's clock."""
        claims = self._read_claims(token)
        return None if claims is None else _identity(claims["sub"], claims.get("role", _BUYER))

    def _read_claims(self, token: str) -> dict[str, Any] | None:
        try:
            claims = self._pyjwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                # PyJWT has one leeway for all times; only the issuer's clock gets one here.
                options={"require": ["exp", "sub"], "verify_iat": False},
            )
        except (jwt.InvalidTokenError, OverflowError):  # The latter: a time without end.
            return None
        issued_at = claims.get("iat", 0)
        if not _was_issued(issued_at, self._clock.now_ms() / 1000):
            return None
        return None if self._is_void(claims["sub"], issued_at) else claims

    def _is_void(self, user_id: str, issued_at: float) -> bool:
        return self._revoked is not None and self._revoked.is_revoked(user_id, issued_at)


def _was_issued(iat: object, now_s: float) -> bool:
    """Whether `iat` is a time that is not to come (RFC 7519 §4.1.6)."""
    return type(iat) in (int, float) and cast("float", iat) <= now_s + SKEW_SECONDS_MAX


def _identity(user_id: str, role: Any) -> Identity | None:
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None or not USER_ID.fullmatch(user_id):
        return None
    return Identity(user_id, known)
