"""Joins handlers to aiohttp: request ids, security headers, shedding, problems, counting."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import asyncpg
from aiohttp import web
from aiohttp.typedefs import Middleware

from api.answers import Answer
from api.bodies import PLACE, Place
from api.front import Front
from api.localized import localized
from api.paths import check_path
from api.patience import reading
from api.problems import Code, Refusal, problem, problem_of
from api.spec import Access, Spec
from api.written import WrittenAnswer, is_writable
from engine.admission.limit import Priority
from engine.errors import DoorbusterError, Unavailable

logger = logging.getLogger(__name__)

Handler = Callable[[Front, web.Request], Awaitable[Answer]]

_CODES: Final = {
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    413: Code.BODY_TOO_LARGE,
    417: Code.EXPECTATION_FAILED,
}
NO_ROUTE: Final = "none"
OVERLOADED: Final = problem(Code.OVERLOADED)
# Whoever asks again at once, as crowds and robots do, waits where it costs nothing.
_HELD: Final = frozenset({Code.OVERLOADED.value, Code.THROTTLED.value, Code.FORBIDDEN.value})


class Route(NamedTuple):
    """One call of the HTTP contract. `always` exempts it from shedding: probes must be answered.

    What takes long by its nature, as hashing does, says nothing of the load: not `measured`.
    Who is let in is `access`, decided before the handler runs. A GET that `waits` for others does
    more than read: it has no time-out of a read.
    """

    method: str
    path: str
    handler: Handler
    always: bool = False
    priority: Priority = Priority.BROWSE
    measured: bool = True
    access: Access = Access.OPERATOR
    spec: Spec | None = None
    waits: bool = False


def add_routes(app: web.Application, front: Front, routes: tuple[Route, ...]) -> None:
    for route in routes:
        handler = _for_those(route.access, _with_fit_path(route.handler))
        if route.method == "GET" and not (route.always or route.waits):
            handler = _within_time(handler)
        call = adapt(front, route._replace(handler=handler))
        if route.method == "GET":
            app.router.add_get(route.path, call)  # and HEAD
        else:
            app.router.add_route(route.method, route.path, call)


def _for_those(access: Access, handler: Handler) -> Handler:
    """The handler behind its door. Whoever may not call learns nothing else."""
    if access in {Access.PUBLIC, Access.SELF}:
        return handler

    async def call(front: Front, request: web.Request) -> Answer:
        front.let_in(request, access)
        return await handler(front, request)

    return call


def _with_fit_path(handler: Handler) -> Handler:
    async def call(front: Front, request: web.Request) -> Answer:
        check_path(request.match_info)
        return await handler(front, request)

    return call


def _within_time(handler: Handler) -> Handler:
    async def call(front: Front, request: web.Request) -> Answer:
        async with reading():
            return await handler(front, request)

    return call


def adapt(front: Front, route: Route) -> Callable[[Any], Awaitable[web.StreamResponse]]:
    """The route as aiohttp wants it: a request in, a response out, whatever happens."""
    name = f"{route.method} {route.path}"
    work = _unlimited if route.always else _limited

    async def call(request: Any) -> web.StreamResponse:
        request_id = request_id_of(front, request)
        answer = front.spread(await work(front, route, request, request_id))
        if type(request) is web.BaseRequest and is_writable(request) and not front.stopping:
            front.counts.requests[name, answer.status] += 1
            return WrittenAnswer(answer, request_id)
        return _respond(front, name, request_id, localized(answer, request))

    return call


async def _unlimited(front: Front, route: Route, request: Any, request_id: str) -> Answer:
    return await answered(route.handler(front, request), request_id)


async def _limited(front: Front, route: Route, request: Any, request_id: str) -> Answer:
    """The answer of a request that was let in, or the refusal of one that was not."""
    limit, priority = front.limit, route.priority
    entered = limit.try_enter(priority)
    if not entered:
        front.count_shed()
        return await held(front, OVERLOADED)
    place = request[PLACE] = Place(priority, entered)
    measured = False
    try:
        answer = await answered(route.handler(front, request), request_id)
        measured = route.measured and place.measured and is_work(answer)
    finally:
        limit.leave(priority, entered, measured)
    return await held(front, answer)


async def held(front: Front, answer: Answer) -> Answer:
    """The answer, after a moment if admission refused the request. Takes no place meanwhile."""
    if answer.label in _HELD:
        await front.held.wait()
    return answer


def is_work(answer: Answer) -> bool:
    """Whether it took the engine's work to find the answer; most refusals take none."""
    return answer.status < 400 or answer.status == 409


def no_route(front: Front) -> Middleware:
    """The middleware that turns aiohttp's own refusals (no such path or method) into problems."""

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            answer = problem(_CODES.get(error.status, Code.INVALID_REQUEST))
            if allow := error.headers.get("Allow"):
                answer = Answer(answer.status, answer.body, (*answer.headers, ("Allow", allow)))
        return _respond(front, NO_ROUTE, request_id_of(front, request), localized(answer, request))

    return middleware


def request_id_of(front: Front, request: web.BaseRequest) -> str:
    return front.request_ids.of(request.headers.get("X-Request-Id"))


def _respond(front: Front, route: str, request_id: str, answer: Answer) -> web.Response:
    response = answer.to_response(request_id)
    front.counts.requests[route, answer.status] += 1
    if front.stopping:
        response.force_close()
    return response


async def answered(answering: Awaitable[Answer], request_id: str) -> Answer:
    """The answer, whatever happens; ConnectionError, when the client left, passes."""
    try:
        return await answering
    except Refusal as refusal:
        return refusal.answer
    except DoorbusterError as error:
        if isinstance(error, Unavailable):
            logger.warning("%s", error, extra={"action": "unavailable"})
        return problem_of(error) or _broken(request_id)
    except asyncpg.DataError as error:
        # The last net: what a request may hold is checked where it is read.
        logger.warning("Postgres refused a value: %s", error, extra={"action": "unfit_value"})
        return problem(Code.INVALID_REQUEST, "A value in the request cannot be stored.")
    except ConnectionError:
        raise  # The client left; nobody waits for an answer.
    except Exception:
        return _broken(request_id)


def _broken(request_id: str) -> Answer:
    """A bug: logged with its cause, answered without it."""
    logger.exception("Request %s failed.", request_id, extra={"action": "internal_error"})
    return problem(
        Code.INTERNAL_ERROR, "The log knows more under the request id.", request_id=request_id
    )
