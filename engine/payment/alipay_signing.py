"""The texts that Alipay signs (RSA2), and how they are made and checked. Pure: no I/O, no clock.

Source: Alipay open platform, "Signing and verifying" and "Asynchronous notification".
"""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from engine.payment.keys import is_signed, sign_text

FIELDS_MAX: Final = 100
UNSIGNED: Final = frozenset({"sign", "sign_type"})


class Forged(Exception):
    """A signature does not fit, or there is none."""


def text_of(params: Mapping[str, str], *without: str) -> bytes:
    """`a=1&b=2`, sorted by name; empty values are left out."""
    pairs = sorted((name, value) for name, value in params.items() if value and name not in without)
    return "&".join(f"{name}={value}" for name, value in pairs).encode()


def signed_params(params: Mapping[str, str], key: RSAPrivateKey) -> dict[str, str]:
    """The parameters of a request with its `sign`. Everything but `sign` itself is signed."""
    return {**params, "sign": sign_text(key, text_of(params, "sign"))}


def signed_url(gateway: str, params: Mapping[str, str], key: RSAPrivateKey) -> str:
    """The address to which a buyer is sent."""
    return f"{gateway}?{urlencode(signed_params(params, key))}"


def verified_answer(body: bytes, node: str, key: RSAPublicKey) -> dict[str, Any]:
    """The object `node` of an answer whose raw text the signature fits. Raises Forged, ValueError."""
    text = body.decode("utf-8")
    answer = json.loads(text)
    if not isinstance(answer, dict):
        raise ValueError("the answer is no object")
    # What Alipay could not even read, it answers as error_response.
    found = next((name for name in (node, "error_response") if name in answer), None)
    if found is None or not isinstance(answer[found], dict):
        raise ValueError(f"the answer has no {node}")
    signature, raw = answer.get("sign"), _raw(text, found)
    if not isinstance(signature, str) or not is_signed(key, signature, raw.encode()):
        raise Forged("the signature does not fit the answer")
    content: dict[str, Any] = json.loads(raw)  # Of what was signed: a name may stand there twice.
    return content


def _raw(text: str, node: str) -> str:
    """The object as it was written: decoding and encoding again could change a byte."""
    start = text.index(f'"{node}"') + len(node) + 2
    start = text.index(":", start) + 1
    start += len(text[start:]) - len(text[start:].lstrip())
    _, end = json.JSONDecoder().raw_decode(text, start)
    return text[start:end]


def verified_notice(body: bytes, key: RSAPublicKey) -> dict[str, str]:
    """The parameters of a form-encoded notification. Raises Forged, ValueError."""
    params = read_form(body)
    if params.get("sign_type", "RSA2") != "RSA2":
        raise Forged("the notification is not signed by RSA2")
    if not is_signed(key, params.get("sign", ""), text_of(params, *UNSIGNED)):
        raise Forged("the signature does not fit the notification")
    return params


def read_form(body: bytes) -> dict[str, str]:
    """Raises ValueError for what is no form, or says something twice."""
    pairs = parse_qsl(
        body.decode("ascii"),
        keep_blank_values=True,
        strict_parsing=True,
        errors="strict",
        max_num_fields=FIELDS_MAX,
    )
    params = dict(pairs)
    if len(params) != len(pairs):
        raise ValueError("a parameter is given twice")
    return params
