"""What goes in and out at a waiting room's door."""

from typing import Annotated, Final

import msgspec

from api.answers import time_text
from api.queue.challenges import PROOF_CHARACTERS_MAX
from api.queue.screening import CAPTCHA_CHARACTERS_MAX

DRAW_METHOD: Final = "fisher-yates/sha-256"  # As `doorbuster queue verify` recomputes it.


Pair = Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)]


class EnterBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of entering: what the sale asks for, if anything."""

    altcha: Annotated[str, msgspec.Meta(max_length=PROOF_CHARACTERS_MAX)] | None = None
    captcha: Annotated[str, msgspec.Meta(max_length=CAPTCHA_CHARACTERS_MAX)] | None = None


class OpenBody(msgspec.Struct, frozen=True):
    """There is no room to wait in: go and buy."""

    sale_id: str
    server_time: str
    state: str = "open"

    @classmethod
    def at(cls, sale_id: str, now_ms: int) -> "OpenBody":
        return cls(sale_id, time_text(now_ms))


class PlaceBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """One's place in the room; the first three fields alone where there is no room to wait in.

    `state` is prequeue, waiting, admitted, gone or open. What nobody can say yet is null.
    """

    sale_id: str
    server_time: str
    state: str
    ticket: str | msgspec.UnsetType = msgspec.UNSET
    number: int | msgspec.UnsetType = msgspec.UNSET
    position: int | msgspec.UnsetType | None = msgspec.UNSET
    ahead: int | msgspec.UnsetType | None = msgspec.UNSET
    eta_seconds: float | msgspec.UnsetType | None = msgspec.UNSET
    eta_range_seconds: Pair | msgspec.UnsetType | None = msgspec.UNSET
    chance: float | msgspec.UnsetType = msgspec.UNSET
    chance_says: str | msgspec.UnsetType = msgspec.UNSET
    available: int | msgspec.UnsetType | None = msgspec.UNSET
    may_return: int | msgspec.UnsetType | None = msgspec.UNSET
    poll_after_seconds: float | msgspec.UnsetType = msgspec.UNSET
    expires_at: str | msgspec.UnsetType = msgspec.UNSET


class ProofBody(msgspec.Struct, frozen=True):
    """All that anyone needs to recompute a draw. What is not known yet is null.

    `number` and `place` are those of the ticket that came with the question.
    """

    sale_id: str
    order: str
    method: str
    seed_hash: str
    opens_at: str
    server_time: str
    drawn: int | None = None
    seed: str | None = None
    number: int | None = None
    place: int | None = None
