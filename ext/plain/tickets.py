"""Signs and reads queue tickets: JWT (RFC 7519), HS256, with the claims sale, num, sub, iat, exp, eta, adm."""

import hmac
import json
import re
from binascii import b2a_base64
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ext.plain.tokens import TokenVerifier

HEADER: Final = b"eyJhbGciOiJIUzI1NiIsInR5cCI6InRpY2tldCtqd3QifQ."
NUMBER_MAX: Final = 1 << 24
SALE_MAX: Final = 48
USER_MAX: Final = 128

_TO_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
_CLAIMS = re.compile(
    rb'\{"sale":"([!-~]+?)","num":(\d{1,15}),"sub":"((?:[!#-\[\]-~]|\\["\\])+)",'
    rb'"iat":(\d{1,15}),"exp":(\d{1,15}),"eta":(null|\d{1,15}),"adm":(true|false)\}'
)


@dataclass(slots=True)
class Ticket:
    """What a genuine ticket claims. `eta_s` is the wait promised at `issued_s`, None if none was."""

    sale_id: str
    user_id: str
    number: int
    issued_s: int
    expires_s: int
    eta_s: int | None
    admitted: bool


class TicketKey:
    """Signs tickets, and knows its own. The key is not that of the access tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._verifier = TokenVerifier(key, HEADER)

    def sign(  # noqa: PLR0917
        self,
        sale_id: str,
        user_id: str,
        number: int,
        issued_s: int,
        expires_s: int,
        eta_s: int,
        admitted: bool,
    ) -> bytes:
        """A ticket. Times in seconds since the Unix epoch; `eta_s` below 0: no wait is promised."""
        if not 0 < len(sale_id) <= SALE_MAX or not 0 < len(user_id) <= USER_MAX:
            raise ValueError("a ticket's sale has 1 to 48 characters, its user 1 to 128")
        if not 0 < number <= NUMBER_MAX:
            raise ValueError("a ticket's number is 1 to 2^24")
        claims = {
            "sale": sale_id,
            "num": number,
            "sub": user_id,
            "iat": issued_s,
            "exp": expires_s,
            "eta": None if eta_s < 0 else eta_s,
            "adm": admitted,
        }
        signed = HEADER + _encode(json.dumps(claims, separators=(",", ":")).encode())
        return signed + b"." + _encode(hmac.digest(self._key, signed, sha256))

    def read(self, token: bytes | None) -> Ticket | None:
        """The ticket, whoever's and however old it is; None if it is forged or no ticket at all."""
        text = None if token is None else self._verifier.claims(token)
        found = None if text is None else _CLAIMS.fullmatch(text)
        if found is None:
            return None
        sale, number, user, issued, expires, eta, admitted = found.groups()
        if not 0 < int(number) <= NUMBER_MAX:
            return None
        return Ticket(
            sale_id=sale.decode(),
            user_id=json.loads(b'"' + user + b'"'),
            number=int(number),
            issued_s=int(issued),
            expires_s=int(expires),
            eta_s=None if eta == b"null" else int(eta),
            admitted=admitted == b"true",
        )


def _encode(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_TO_URLSAFE).rstrip(b"=")
