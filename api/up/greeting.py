"""What `doorbuster up` tells its operator once everything serves."""

from pathlib import Path
from typing import Final

from api.demo.shop import SALE_ID, SHOWN_SKU
from api.tokens import Role, Tokens
from engine.model import make_reservation_id, public_id

TOKEN_SECONDS: Final = 24 * 3600
KEY: Final = "first-click"


def greeting(url: str, data_dir: Path, program: str) -> str:
    """The line that says `ready`, and where to look."""
    return f"""\
ready {url}

  calls    {url}/docs   {url}/openapi.json
  health   {url}/healthz   {url}/readyz   {url}/metrics
  logs     {data_dir}/logs
  mails    {program} mails
  truth    {program} check
  stop     Ctrl-C
"""


def demo_greeting(url: str, tokens: Tokens, buyer: str) -> str:
    """An operator's token and three calls that work as they stand."""
    operator_token = tokens.issue("operator", Role.OPERATOR, TOKEN_SECONDS)
    bearer = f"-H 'Authorization: Bearer {tokens.issue(buyer, Role.BUYER, TOKEN_SECONDS)}'"
    reservation = public_id(SALE_ID, make_reservation_id(SALE_ID, buyer, KEY))
    body = f'{{"items":[{{"sku":"{SHOWN_SKU}","quantity":1}}]}}'
    return f"""\
operator token (24 h):
{operator_token}

look at the sale, reserve a phone as {buyer}, see what became of it
(orders of the demo sale are paid by themselves, a moment later):
curl -s {url}/v1/sales/{SALE_ID}
curl -s {url}/v1/sales/{SALE_ID}/reservations {bearer} -H 'Idempotency-Key: {KEY}' -H 'Content-Type: application/json' -d '{body}'
curl -s {url}/v1/reservations/{reservation} {bearer}
"""
