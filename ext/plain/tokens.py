"""Verifies HS256 signatures of tokens (RFC 7515) and opens their claims. Reads no claim."""

import hmac
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

BLOCK: Final = 64
SIGNATURE: Final = 43  # 32 bytes in base64 without padding

# Between the alphabet that binascii knows and that of RFC 4648 §5.
_TO_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
# What does not belong into it becomes what strict_mode refuses.
_FROM_URLSAFE: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_USER = re.compile(r"[!-~]{1,128}")  # USER_ID of engine/model.py
_PADDING: Final = (b"", b"===", b"==", b"=")


class TokenVerifier:
    """Verifies tokens with one key and one header.

    HMAC-SHA256 whose two padded blocks are hashed beforehand (RFC 2104 §4).
    """

    def __init__(self, key: bytes, header: bytes) -> None:
        block = (sha256(key).digest() if len(key) > BLOCK else key).ljust(BLOCK, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))
        self._header = header

    def claims(self, token: bytes) -> bytes | None:
        """The claims' JSON if the token has our header and a genuine signature, else None.

        The signature is compared in a time that does not depend on it.
        """
        if not self.is_genuine(token):
            return None
        text = token[len(self._header) : -SIGNATURE - 1].translate(_FROM_URLSAFE)
        try:
            return a2b_base64(text + _PADDING[len(text) % 4], strict_mode=True)
        except ValueError:
            return None

    def is_genuine(self, token: bytes) -> bool:
        """Whether the token has our header and was signed with our key."""
        signed, dot, signature = (
            token[: -SIGNATURE - 1],
            token[-SIGNATURE - 1 :][:1],
            token[-SIGNATURE:],
        )
        if dot != b"." or len(signed) <= len(self._header) or not signed.startswith(self._header):
            return False
        expected = b2a_base64(self._digest(signed), newline=False).translate(_TO_URLSAFE)
        return hmac.compare_digest(expected[:SIGNATURE], signature)

    def user_until(
        self, token: bytes, decode: Callable[[bytes], Any], now_s: float, issued_max_s: float
    ) -> tuple[str, int] | None:
        """(user, end in s since the Unix epoch) of a genuine token that is valid now, else None.

        `decode` makes an object with `sub`, `exp` and `iat` of the claims, or raises ValueError.
        `issued_max_s` is the latest `iat` that is believed.
        """
        text = self.claims(token)
        if text is None:
            return None
        try:
            claims = decode(text)
        except ValueError:
            return None
        if claims.exp <= now_s or claims.iat > issued_max_s or not _USER.fullmatch(claims.sub):
            return None
        return claims.sub, claims.exp

    def _digest(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()
