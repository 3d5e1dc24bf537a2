"""What an operator may set of a sale's waiting room. Pure values."""

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

PREQUEUE_SECONDS_MAX: Final = 86_400  # A day: who waits longer wants an appointment.
ROOM_PACE_MAX: Final = 1_000_000  # People per second: more than any engine stores.
PROOF_DIFFICULTY_MAX: Final = 50_000_000  # Hashes to try: minutes of a telephone.

Whole = msgspec.Meta


class RoomOrder(StrEnum):
    """In which order those are served who came before the opening."""

    FIFO = "fifo"
    DRAW = "draw"


class RoomSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One sale's room. `revision` counts changes; `seed_hash` commits to the draw's seed."""

    revision: int = 0
    on: bool = False
    order: RoomOrder = RoomOrder.FIFO
    # How long before the opening the room lets people in.
    prequeue_seconds: Annotated[int, Whole(ge=0, le=PREQUEUE_SECONDS_MAX)] = 900
    pace_max: Annotated[int, Whole(ge=1, le=ROOM_PACE_MAX)] | None = None  # people/s
    # People let in per unit that is left: not everybody who may buy does.
    over_admission: Annotated[float, Whole(ge=1, le=10)] = 1.2
    admission_seconds: Annotated[int, Whole(ge=10, le=3600)] = 120  # to reserve, once admitted
    absent_seconds: Annotated[int, Whole(ge=20, le=300)] = 45  # without a poll: then skipped
    proof_difficulty: Annotated[int, Whole(ge=0, le=PROOF_DIFFICULTY_MAX)] = 0  # 0: no proof asked
    captcha: bool = False
    seed_hash: str = ""  # hex SHA-256 of the draw's seed, published before the opening


class RoomChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a room. What is left UNSET stays as it is."""

    on: bool | msgspec.UnsetType = msgspec.UNSET
    order: RoomOrder | msgspec.UnsetType = msgspec.UNSET
    prequeue_seconds: Annotated[int, Whole(ge=0, le=PREQUEUE_SECONDS_MAX)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    pace_max: Annotated[int, Whole(ge=1, le=ROOM_PACE_MAX)] | msgspec.UnsetType | None = (
        msgspec.UNSET
    )
    over_admission: Annotated[float, Whole(ge=1, le=10)] | msgspec.UnsetType = msgspec.UNSET
    admission_seconds: Annotated[int, Whole(ge=10, le=3600)] | msgspec.UnsetType = msgspec.UNSET
    absent_seconds: Annotated[int, Whole(ge=20, le=300)] | msgspec.UnsetType = msgspec.UNSET
    proof_difficulty: Annotated[int, Whole(ge=0, le=PROOF_DIFFICULTY_MAX)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    captcha: bool | msgspec.UnsetType = msgspec.UNSET

    def given(self) -> dict[str, Any]:
        """The fields that are set, by name."""
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in values if value is not msgspec.UNSET}
