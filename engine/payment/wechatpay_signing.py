"""The texts that WeChat Pay v3 signs, its Authorization header, and its sealed resources.

Pure: no I/O, no clock. Source: pay.weixin.qq.com, "API v3: signing, verifying, decrypting".
"""

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.payment.keys import sign_text

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
ALGORITHM: Final = "AEAD_AES_256_GCM"
WINDOW_SECONDS: Final = 300  # As WeChat asks; its own SDKs leave the check to their users.
TIMESTAMP, NONCE = "Wechatpay-Timestamp", "Wechatpay-Nonce"
SIGNATURE, SERIAL = "Wechatpay-Signature", "Wechatpay-Serial"


class Sealed(Exception):
    """A resource cannot be opened with our key."""


def request_text(method: str, path: str, timestamp: str, nonce: str, body: bytes) -> bytes:
    """What is signed of a request. `path` with its query, as it goes over the wire."""
    return f"{method}\n{path}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"


def answer_text(timestamp: str, nonce: str, body: bytes) -> bytes:
    """What is signed of an answer and of a notification."""
    return f"{timestamp}\n{nonce}\n".encode(errors="surrogateescape") + body + b"\n"


def authorization(
    key: RSAPrivateKey, *, mch_id: str, serial: str, timestamp: str, nonce: str, text: bytes
) -> str:
    """The header's value."""
    return (
        f'{SCHEME} mchid="{mch_id}",nonce_str="{nonce}",signature="{sign_text(key, text)}",'
        f'timestamp="{timestamp}",serial_no="{serial}"'
    )


def is_timely(timestamp: str, now_ms: int) -> bool:
    """Whether a message is of these minutes; False for what is no time."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    return abs(now_ms - int(timestamp) * 1000) <= WINDOW_SECONDS * 1000


def opened(secret: bytes, resource: Mapping[str, Any]) -> bytes:
    """What a sealed resource holds. Raises Sealed."""
    try:
        if resource["algorithm"] != ALGORITHM:
            raise Sealed("another algorithm")
        return AESGCM(secret).decrypt(
            str(resource["nonce"]).encode(),
            b64decode(resource["ciphertext"], validate=True),
            str(resource.get("associated_data") or "").encode(),
        )
    except (KeyError, TypeError, ValueError, InvalidTag) as error:
        raise Sealed(f"it cannot be opened: {type(error).__name__}") from error


def opened_object(secret: bytes, resource: Mapping[str, Any]) -> dict[str, Any]:
    """As `opened`, of JSON. Raises Sealed."""
    try:
        value = json.loads(opened(secret, resource))
    except ValueError as error:
        raise Sealed("it holds no JSON") from error
    if not isinstance(value, dict):
        raise Sealed("it holds no object")
    return value
