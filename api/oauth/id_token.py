"""Reads ID tokens (OpenID Connect Core 1.0 §3.1.3.7). Gets the keys handed in; asks nobody."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from joserfc import jwk, jws, jwt
from joserfc.errors import JoseError

# Signatures that others can check: with HS256 the provider's public key would pass for a secret.
ALGORITHMS: Final = ("RS256", "ES256")
_KEY_TYPE: Final = {"RS256": "RSA", "ES256": "EC"}
SKEW_SECONDS_MAX: Final = 60  # Between the provider's clock and ours.
AGE_SECONDS_MAX: Final = 600  # Since it was issued: it comes straight from the provider.
TOKEN_LENGTH_MAX: Final = 16_384
RSA_BITS_MIN: Final = 2048  # RFC 7518 §3.3

Jwk = Mapping[str, Any]


class Fault(msgspec.Struct, frozen=True):
    """Why a login is refused. For the log: it tells nothing secret."""

    reason: str


class Wanted(msgspec.Struct, frozen=True):
    """What a token has to say."""

    issuer: str
    client_id: str
    nonce: str
    access_token: str
    now_s: float


class IdClaims(msgspec.Struct, frozen=True):
    """Who logged in, by the provider's word. Claims of no use here are left out."""

    iss: str
    sub: str
    aud: str | list[str]
    exp: float
    iat: float
    nonce: str | None = None
    azp: str | None = None
    at_hash: str | None = None
    email: str | None = None
    email_verified: bool | str | None = None
    name: str | None = None


def header_of(token: str) -> dict[str, Any] | Fault:
    """The header, before anything is known to be true: it only says which key to try."""
    if len(token) > TOKEN_LENGTH_MAX or not token.isascii():
        return Fault("the ID token is none")
    try:
        header = dict(jws.extract_compact(token.encode()).headers())
    except (JoseError, ValueError, RecursionError):
        return Fault("the ID token is none")
    if header.get("alg") not in ALGORITHMS:
        return Fault("the ID token is not signed as it should be")
    return header


def key_for(header: Mapping[str, Any], keys: Sequence[Jwk]) -> Jwk | None:
    """The one key that may have signed it; None where none does, or it cannot be told which."""
    algorithm, kid = header["alg"], header.get("kid")
    fit = [
        key
        for key in keys
        if key.get("kty") == _KEY_TYPE[algorithm]
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (kid is None or key.get("kid") == kid)
    ]
    return fit[0] if len(fit) == 1 else None


def read_id_token(token: str, key: Jwk, wanted: Wanted) -> IdClaims | Fault:
    """The claims, if signature and claims are as they must be."""
    try:
        public = jwk.import_key(dict(key))
        if isinstance(public, jwk.RSAKey) and public.public_key.key_size < RSA_BITS_MIN:
            return Fault("the provider's key is too short")
        verified = jwt.decode(token, public, algorithms=list(ALGORITHMS))
        claims = msgspec.convert(verified.claims, IdClaims)
    except (JoseError, ValueError, TypeError, msgspec.ValidationError):
        return Fault("the ID token is forged, or lacks something")
    wrong = _wrong_in(claims, wanted, verified.header["alg"])
    return claims if wrong is None else Fault(f"the ID token's {wrong} is wrong")


def _wrong_in(claims: IdClaims, wanted: Wanted, algorithm: str) -> str | None:
    """The first claim that is not as it must be."""
    audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    nonce = claims.nonce or ""
    checks = {
        "iss": claims.iss == wanted.issuer,
        "sub": 0 < len(claims.sub) <= 255,  # Core §2
        "aud": wanted.client_id in audience,
        "azp": claims.azp == wanted.client_id if claims.azp is not None else len(audience) == 1,
        "exp": claims.exp > wanted.now_s - SKEW_SECONDS_MAX,
        "iat": -AGE_SECONDS_MAX <= claims.iat - wanted.now_s <= SKEW_SECONDS_MAX,
        "nonce": hmac.compare_digest(nonce.encode(), wanted.nonce.encode()),
        "at_hash": claims.at_hash is None
        or hmac.compare_digest(claims.at_hash.encode(), _half_hash(wanted.access_token)),
    }
    assert algorithm in ALGORITHMS, "both hash with SHA-256"
    return next((name for name, holds in checks.items() if not holds), None)


def _half_hash(access_token: str) -> bytes:
    """The left half of SHA-256 (Core §3.1.3.6)."""
    digest = hashlib.sha256(access_token.encode()).digest()
    return urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
