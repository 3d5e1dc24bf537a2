"""Makes access tokens by the million: the very bytes that api.tokens makes one at a time.

Leaves reading them, and everything else about tokens, to api.tokens.
"""

import hmac
from binascii import b2a_base64
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from api.tokens import TOKEN_SECONDS, Role, Tokens
from engine.clock import Clock

_TO_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")  # RFC 4648 §5


def mint(
    secret: str,
    clock: Clock,
    user_ids: Iterable[str],
    role: Role = Role.BUYER,
    seconds: int = TOKEN_SECONDS,
) -> Iterator[str]:
    """A token for each user, as `Tokens.issue` would make it; all are issued at this moment.

    5 µs each, where the encoder for any claims takes 25.
    """
    now_s = clock.now_ms() // 1000
    header = Tokens(secret, clock).issue("nobody").encode().partition(b".")[0]
    key = secret.encode()
    rest = f',"role":"{role.value}","exp":{now_s + seconds},"iat":{now_s}}}'.encode()
    for user_id in user_ids:
        claims = b'{"sub":%b%b' % (msgspec.json.encode(user_id), rest)
        signed = b"%b.%b" % (header, _base64url(claims))
        yield (b"%b.%b" % (signed, _base64url(hmac.digest(key, signed, "sha256")))).decode()


def _base64url(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_TO_URLSAFE).rstrip(b"=")
