"""Keys and names of the gateways that are practised with: made once, kept in a folder.

Both sides of every conversation are here, since both are ours. For no real money.
"""

import os
import secrets
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from engine.config import Settings
from engine.runtime import gateway_settings

FOLDER: Final = "gateways"  # in the data folder
FILE: Final = "keys.json"
PRIVATE: Final = 0o600
RSA_BITS: Final = 2048
CERTIFICATE_DAYS: Final = 1825  # As WeChat's own: five years.
ALIPAY_PATH: Final = "/alipay/gateway.do"


class GatewayKeys(msgspec.Struct, frozen=True):
    """Keys are PEM text. `…_gateway_…` are the gateway's side, the others the merchant's."""

    alipay_app_id: str
    alipay_seller_id: str
    alipay_private_key: str
    alipay_gateway_key: str
    wechatpay_app_id: str
    wechatpay_mch_id: str
    wechatpay_serial: str
    wechatpay_private_key: str
    wechatpay_api_v3_secret: str
    wechatpay_gateway_key: str
    stripe_secret_key: str
    stripe_publishable_key: str
    stripe_webhook_secret: str

    def settings(self, sandbox_url: str) -> dict[str, str]:
        """The engine's settings of all three, for gateways that serve on `sandbox_url`."""
        alipay_key = read_key(self.alipay_gateway_key).public_key()
        same = {
            name: _one_line(getattr(self, name))
            for name in (
                "alipay_app_id",
                "alipay_seller_id",
                "alipay_private_key",
                "wechatpay_app_id",
                "wechatpay_mch_id",
                "wechatpay_serial",
                "wechatpay_private_key",
                "wechatpay_api_v3_secret",
                "stripe_secret_key",
                "stripe_publishable_key",
            )
        }
        return same | {
            "alipay_url": sandbox_url + ALIPAY_PATH,
            "alipay_public_key": _one_line(public_pem(alipay_key)),
            "wechatpay_url": f"{sandbox_url}/wechatpay",
            "stripe_url": f"{sandbox_url}/stripe",
            "stripe_webhook_secrets": self.stripe_webhook_secret,
        }


def keep_gateway_keys(data_dir: Path) -> GatewayKeys:
    """The folder's; fresh ones the first time."""
    path = data_dir / FOLDER / FILE
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=GatewayKeys)
    made = make_gateway_keys()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(file, "wb") as open_file:
        open_file.write(msgspec.json.encode(made))
    draft.replace(path)
    return made


def practised_gateways(settings: Settings, data_dir: Path, sandbox_url: str) -> dict[str, str]:
    """The settings of the gateways to practise with; none of a provider that is set up already."""
    made = keep_gateway_keys(data_dir).settings(sandbox_url)
    set_up = {_provider(name) for name in gateway_settings(settings) if name in made}
    return {name: value for name, value in made.items() if _provider(name) not in set_up}


def _provider(setting: str) -> str:
    return setting.partition("_")[0]


def make_gateway_keys() -> GatewayKeys:
    """Fresh ones."""
    return GatewayKeys(
        alipay_app_id="2021000100000001",
        alipay_seller_id="2088000100000001",
        alipay_private_key=_new_key(),
        alipay_gateway_key=_new_key(),
        wechatpay_app_id="wx0000000000000001",
        wechatpay_mch_id="1900000001",
        wechatpay_serial=f"{x509.random_serial_number():040X}",
        wechatpay_private_key=_new_key(),
        wechatpay_api_v3_secret=secrets.token_hex(16),
        wechatpay_gateway_key=_new_key(),
        stripe_secret_key=f"sk_test_{secrets.token_hex(16)}",
        stripe_publishable_key=f"pk_test_{secrets.token_hex(16)}",
        stripe_webhook_secret=f"whsec_{secrets.token_hex(16)}",
    )


def make_certificate(key: rsa.RSAPrivateKey, now: datetime) -> x509.Certificate:
    """One that the key signs for itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sandbox of WeChat Pay")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - timedelta(days=1))
        .not_valid_after(now.astimezone(UTC) + timedelta(days=CERTIFICATE_DAYS))
        .sign(key, SHA256())
    )


@cache
def forgers_key() -> rsa.RSAPrivateKey:
    """Nobody's who should be believed. One for a process: keys take their time."""
    return new_key()


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


@cache
def read_key(pem: str) -> rsa.RSAPrivateKey:
    """A private key of ours. Kept: reading one proves that its numbers fit, which takes its time."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def public_pem(key: rsa.RSAPublicKey) -> str:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def _new_key() -> str:
    return (
        new_key()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def _one_line(pem: str) -> str:
    """A key as consoles show it, so that it fits into one line of a settings file."""
    return "".join(line for line in pem.splitlines() if not line.startswith("-----"))
