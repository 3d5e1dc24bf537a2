"""Reads what a payment provider needs of the settings: what is missing is said in one sentence.

Keys are PEM text, the bare base64 that consoles show, or the path of a file with either.
"""

import os
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate

from engine.config import ENV_PREFIX, Settings
from engine.errors import ConfigError

KEY_BYTES_MAX: Final = 65_536
PEM: Final = b"-----BEGIN"


def is_configured(settings: Settings, provider: str, names: Sequence[str]) -> bool:
    """Whether all of these are set. Raises ConfigError where only some are."""
    missing = [name for name in names if not getattr(settings, name)]
    if len(missing) == len(names):
        return False
    if missing:
        words = " and ".join(f"{ENV_PREFIX}{name.upper()}" for name in missing)
        raise ConfigError([f"{provider} is configured in part only: set {words} as well."])
    return True


def read_private_key(settings: Settings, name: str) -> RSAPrivateKey:
    """Raises ConfigError. PKCS #8 or PKCS #1."""
    data = _key_bytes(settings, name)
    try:
        key = (
            serialization.load_pem_private_key(data, None)
            if data.startswith(PEM)
            else serialization.load_der_private_key(b64decode(data, validate=True), None)
        )
    except (ValueError, TypeError, NotBase64) as error:
        raise _unusable(name, "private") from error
    if not isinstance(key, RSAPrivateKey):
        raise _unusable(name, "private")
    return key


def read_public_key(settings: Settings, name: str) -> RSAPublicKey:
    """Raises ConfigError. A certificate will do as well."""
    data = _key_bytes(settings, name)
    try:
        if data.startswith(b"-----BEGIN CERTIFICATE"):
            key = load_pem_x509_certificate(data).public_key()
        elif data.startswith(PEM):
            key = serialization.load_pem_public_key(data)  # type: ignore[assignment]
        else:
            key = serialization.load_der_public_key(b64decode(data, validate=True))  # type: ignore[assignment]
    except (ValueError, NotBase64) as error:
        raise _unusable(name, "public") from error
    if not isinstance(key, RSAPublicKey):
        raise _unusable(name, "public")
    return key


def sign_text(key: RSAPrivateKey, text: bytes) -> str:
    """SHA256withRSA (PKCS #1 v1.5), as Alipay's RSA2 and WeChat Pay v3 use it; in base64."""
    return b64encode(key.sign(text, PKCS1v15(), SHA256())).decode()


def is_signed(key: RSAPublicKey, signature: str, text: bytes) -> bool:
    """The inverse of `sign_text`; False for what is no base64, too."""
    try:
        key.verify(b64decode(signature, validate=True), text, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):  # NotBase64 is a ValueError.
        return False
    return True


def _key_bytes(settings: Settings, name: str) -> bytes:
    text = getattr(settings, name).strip()
    data = text.encode()
    # Of base64 that is too long for a name, isfile says no and pathlib raises.
    if not data.startswith(PEM) and os.path.isfile(text):
        try:
            with open(text, "rb") as file:
                data = file.read(KEY_BYTES_MAX).strip()
        except OSError as error:
            raise _unusable(name, "readable") from error
    return data if data.startswith(PEM) else b"".join(data.split())


def _unusable(name: str, kind: str) -> ConfigError:
    return ConfigError(
        [f"{ENV_PREFIX}{name.upper()}: holds no {kind} RSA key, and names no file that does."]
    )
