"""Makes the key that signs queue tickets. The tickets themselves are kernels: ext/tickets.pyx."""

import hmac
from typing import Final

from ext import TicketKey

PURPOSE: Final = b"doorbuster queue ticket"


def ticket_key(secret: str) -> TicketKey:
    """A key of its own, derived from the engine's secret: no access token can be made with it."""
    return TicketKey(hmac.digest(secret.encode(), PURPOSE, "sha256"))
