"""How operators look at admission and steer it: a sale's waiting room, and the access rules.

Says what the engine says. The command line shows the same.
"""

import math
from typing import Any, Final

import msgspec
from aiohttp import web

from api.admin.access_rules import rules_for
from api.admin.room_changes import read_changes
from api.answers import Answer, personal, time_text
from api.front import Front
from api.problems import Code, problem
from engine.admission.access import AccessRule
from engine.admission.room.settings import RoomSettings
from engine.admission.room.store import RoomLook
from engine.errors import RedisUnavailable, UnknownSale
from engine.sales import Sale

_object_decoder: Final = msgspec.json.Decoder(dict[str, Any])


class LookBody(msgspec.Struct, frozen=True):
    """A room at one moment of Redis's clock."""

    at: str
    revision: int
    on: bool
    issued: int
    serving: int
    waiting: int
    drawn: int | None
    served_per_second: float
    admitted: int
    used: int
    available: int
    reserved: int
    sold: int


class PaceBody(msgspec.Struct, frozen=True):
    """What the whole engine can store. `per_second` is null while nothing limits it."""

    per_second: float | None
    hop: str
    fronts: int


class LimitBody(msgspec.Struct, frozen=True):
    """Requests in work in the process that answers."""

    limit: int
    in_flight: int


class AdmissionBody(msgspec.Struct, frozen=True):
    """A sale's admission. `look` is null while Redis does not tell."""

    sale_id: str
    settings: RoomSettings
    look: LookBody | None
    pace: PaceBody
    process: LimitBody
    access_rules: list[AccessRule]


async def show_admission(front: Front, request: web.Request, _actor: str) -> Answer:
    """The settings, the room as it is now, the pace and its hop, and the rules that concern the sale."""
    return personal(await _shown(front, request.match_info["sale"]))


async def change_admission(front: Front, request: web.Request, actor: str) -> Answer:
    """Changes the fields given and no others, whether it was a PUT or a PATCH."""
    sale_id = request.match_info["sale"]
    values = await front.bodies.json(request, _object_decoder)
    changes = read_changes(values, front.engine.settings)
    try:
        await front.engine.room_control.change(sale_id, actor, changes)
    except RedisUnavailable as error:
        # Postgres has the change; the error says so and when it takes effect.
        return problem(Code.UNAVAILABLE, str(error))
    finally:
        front.engine.directory.forget(sale_id)
    return personal(await _shown(front, sale_id))


async def _shown(front: Front, sale_id: str) -> AdmissionBody:
    engine = front.engine
    sale = await engine.directory.get(sale_id)
    if sale is None:
        raise UnknownSale
    pace = engine.pulse.pace
    return AdmissionBody(
        sale_id=sale_id,
        settings=await engine.room_control.get(sale_id),
        look=await _look(front, sale),
        pace=PaceBody(pace if math.isfinite(pace) else None, engine.pulse.hop, engine.pulse.fronts),
        process=LimitBody(front.limit.limit, front.limit.in_flight),
        access_rules=await rules_for(engine.access_control, sale_id),
    )


async def _look(front: Front, sale: Sale) -> LookBody | None:
    if sale.room is None:
        return None  # Following it would take another room's place.
    try:
        room = await front.engine.rooms.follow(sale)
    except RedisUnavailable:
        return None
    return None if room is None or room.look is None else look_body(room.look)


def look_body(look: RoomLook) -> LookBody:
    return LookBody(
        at=time_text(look.now_ms),
        revision=look.revision,
        on=look.on,
        issued=look.issued,
        serving=look.serving,
        waiting=look.waiting,
        drawn=look.drawn,
        served_per_second=look.rate,
        admitted=look.admitted,
        used=look.used,
        available=look.available,
        reserved=look.reserved,
        sold=look.sold,
    )
