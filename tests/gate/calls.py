"""Requests for a served engine, as bytes."""

from tests.gate.streams import COLD, request, show_sale
from tests.support.front import Served

BODY = b'{"items":[{"sku":"phone-black","quantity":1}]}'
PATH = "/v1/sales/demo/reservations"

__all__ = ["BODY", "COLD", "PATH", "fields_of", "reserve_call", "show_sale", "status_of"]


def fields_of(served: Served, user: str = "u1", key: str = "k") -> list[str]:
    """The headers of a good reserve call, but for its length."""
    return [
        "Host: x",
        f"Authorization: Bearer {served.tokens.issue(user)}",
        f"Idempotency-Key: {key}",
        "Content-Type: application/json",
    ]


def reserve_call(
    served: Served, *more: str, user: str = "u1", key: str = "k", body: bytes = BODY
) -> bytes:
    return request(f"POST {PATH} HTTP/1.1", *fields_of(served, user, key), *more, body=body)


def status_of(answer: bytes) -> int:
    return int(answer[9:12])
