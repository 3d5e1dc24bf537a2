"""The call that a visitor in a waiting room repeats: where do I stand?

Costs no Redis: each process knows its rooms. Entering a room is another module's.
"""

from typing import Final, NamedTuple

from aiohttp import web

from api.answers import PERSONAL, Answer, personal
from api.front import Front, ticket_of
from api.patience import reading
from api.problems import Code, problem
from api.queue import specs
from api.queue.bodies import OpenBody
from api.routing import Route
from api.spec import Access

POLL: Final = "/v1/sales/{sale}/queue"


class PollCall(NamedTuple):
    """What it takes to answer a poll."""

    user_id: str
    sale_id: str
    queue_ticket: bytes | None


async def show_queue(front: Front, request: web.Request) -> Answer:
    sale_id = request.match_info["sale"]
    identity = front.caller(request, sale_id)
    return await place_shown(front, PollCall(identity.user_id, sale_id, ticket_of(request)))


async def place_shown(front: Front, call: PollCall) -> Answer:
    """The visitor's place, with the ticket renewed where that is due. Raises Refusal, Unavailable."""
    sale = front.engine.directory.peek(call.sale_id)
    if sale is None:
        async with reading():
            sale = await front.engine.directory.get(call.sale_id)
    if sale is None:
        return problem(Code.UNKNOWN_SALE)
    room = await front.room_of(sale)
    if room is None:
        return personal(OpenBody.at(sale.sale_id, front.engine.clock.now_ms()))
    body = room.poll(call.queue_ticket, call.user_id, front.engine.clock.now_ms() / 1000)
    if body is None:
        raise front.ticket_refused(room, call.queue_ticket, call.user_id)
    return Answer(200, body, PERSONAL)


ROUTES = (Route("GET", POLL, show_queue, access=Access.SELF, spec=specs.SHOW_QUEUE),)
