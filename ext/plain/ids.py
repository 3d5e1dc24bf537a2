"""Derives reservation ids. What they are made of is said in engine/model.py."""

from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Final

DIGEST: Final = 15  # 120 bits: 20 characters of base64 without padding.


def make_reservation_id(sale_id: str, user_id: str, idempotency_key: str) -> str:
    """20 URL-safe characters: the first 120 bits of BLAKE2b over the three, NUL between them."""
    text = f"{sale_id}\0{user_id}\0{idempotency_key}"
    return urlsafe_b64encode(blake2b(text.encode(), digest_size=DIGEST).digest()).decode()
