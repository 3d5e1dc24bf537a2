"""How a gateway can misbehave. Says what there is; the gateways and their notices do it."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec

SECONDS_MAX: Final = 86_400.0
DUPLICATES: Final = 3
REPLAY_SECONDS: Final = 3600  # How old a replayed notice is.


class Mischief(StrEnum):
    """One vice at a time."""

    NONE = "none"
    # Of notices:
    DELAY = "delay"  # They come after `seconds`.
    DUPLICATE = "duplicate"  # Each comes three times.
    REORDER = "reorder"  # An older state is told last.
    DROP = "drop"  # They never come.
    FORGE = "forge"  # Signed with another key.
    TAMPER = "tamper"  # Changed after they were signed.
    REPLAY = "replay"  # Signed an hour ago.
    # Of money:
    WRONG_AMOUNT = "wrong_amount"  # The buyer pays one unit more than was asked.
    WRONG_CURRENCY = "wrong_currency"
    # Of answers; what is asked for is done:
    LATE_ANSWER = "late_answer"  # After `seconds`.
    UNSIGNED = "unsigned"  # Signed with another key.
    # Of answers; nothing is done:
    DOWN = "down"  # 503.
    CUT = "cut"  # The connection breaks.
    NONSENSE = "nonsense"
    # Of refunds:
    SLOW_REFUND = "slow_refund"  # Accepted at once, done after `seconds`.


UNDONE: Final = frozenset({Mischief.DOWN, Mischief.CUT, Mischief.NONSENSE})
FAKE: Final = frozenset({Mischief.FORGE, Mischief.TAMPER, Mischief.REPLAY})


class Mood(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A gateway's vice, and for how many more calls its answers have it; None: until it is changed."""

    mischief: Mischief = Mischief.NONE
    seconds: Annotated[float, msgspec.Meta(ge=0, le=SECONDS_MAX)] = 1.0
    calls: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def after_a_call(self) -> "Mood":
        if self.calls is None:
            return self
        return Mood(self.mischief, self.seconds, self.calls - 1) if self.calls > 1 else Mood()
