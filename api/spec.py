"""What a route promises, said once: who may call it, what it takes, what it answers.

The guard at the door, the OpenAPI document and the tests are made from it.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from api.problems import Code
from engine.model import IDEMPOTENCY_KEY_MAX


class Access(StrEnum):
    """Who may call a route. One that says nothing is for operators: denied by default."""

    PUBLIC = "public"  # Anyone, without being asked who. Neither throttled nor told apart.
    VISITOR = "visitor"  # Anyone, at the rate of the address, or of the user who shows a token.
    SELF = "self"  # The handler asks for a token itself: rules of one sale concern it.
    CALLER = "caller"  # Whoever has a valid token.
    SUPPORT = "support"  # Support and operators.
    OPERATOR = "operator"


class Param(NamedTuple):
    """A query parameter or a header that a route reads."""

    name: str
    description: str
    type: Any = str  # a msgspec type
    required: bool = False


# What any route may refuse with, whoever calls it.
ALWAYS: Final = (Code.INVALID_REQUEST, Code.THROTTLED, Code.OVERLOADED, Code.UNAVAILABLE)


class Spec(NamedTuple):
    """The contract of one route, as OpenAPI tells it.

    `answers` are the good ones, by status: a msgspec type, None for no body, or text for a body
    of that media type. `codes` are the refusals beside those that its access and `ALWAYS` bring.
    `query` is a msgspec Struct whose fields are the parameters, read by `api.queries.read_query`.
    `tells` are headers of good answers, by status. A body of another media type than JSON is text;
    where there are several media types, they stand one after the other, as in "text/csv, text/plain".
    """

    tag: str
    summary: str
    answers: Mapping[int, Any]
    description: str = ""
    body: Any = None
    body_required: bool = True
    body_media: str = "application/json"
    query: Any = None
    headers: tuple[Param, ...] = ()
    codes: tuple[Code, ...] = ()
    tells: Mapping[int, tuple[Param, ...]] = MappingProxyType({})


IDEMPOTENCY_KEY: Final = Param(
    "Idempotency-Key",
    "Names this wish: repeated with the same key, it is answered the same and done once.",
    Annotated[str, msgspec.Meta(pattern=rf"^[ -~]{{1,{IDEMPOTENCY_KEY_MAX}}}$")],
)
LOCATION: Final = Param("Location", "Where to find what was made.", required=True)
