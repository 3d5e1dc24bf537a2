"""The calls of operators and support on other people's accounts."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal, time_text
from api.front import Front
from api.paging import CURSOR_LENGTH_MAX, PAGE_DEFAULT, PAGE_MAX, cursor, cursor_text
from api.problems import Code, Refusal
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Spec
from api.tokens import Role
from api.users.accounts import Accounts
from api.users.store import User, Users
from engine.model import USER_ID


class UsersQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which users: those whose e-mail begins so, the newest first."""

    email: Annotated[str, msgspec.Meta(max_length=254)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: Annotated[str, msgspec.Meta(max_length=CURSOR_LENGTH_MAX)] | None = None


class AdministerBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PATCH /v1/admin/users/{user}: what is left out stays."""

    role: Role | None = None
    blocked: bool | None = None


class ShownUser(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user as shown to those who help and those who operate."""

    user_id: str
    name: str
    role: str
    language: str
    email_verified: bool
    local_login: bool
    created_at: str
    email: str | None = None
    blocked_at: str | None = None
    deleted_at: str | None = None


class UsersPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some of the users; `next` is `after` of the following page."""

    users: list[ShownUser]
    next: str | None = None


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last user of a page."""

    created_at: Annotated[datetime, msgspec.Meta(tz=True)]
    user_id: Annotated[str, msgspec.Meta(pattern=rf"^(?:{USER_ID.pattern})\Z")]


_body_decoder: Final = msgspec.json.Decoder(AdministerBody)
_end_decoder: Final = msgspec.json.Decoder(PageEnd)


async def list_users(front: Front, request: web.Request) -> Answer:
    query = read_query(request, UsersQuery)
    end = cursor(request, _end_decoder)
    before = (end.created_at, end.user_id) if end else None
    users = await Users(front.engine.pool).page(query.email, before, query.limit)
    following = None
    if len(users) == query.limit:
        following = cursor_text(PageEnd(users[-1].created_at, users[-1].user_id))
    return personal(UsersPage([_shown(user) for user in users], following))


async def show_user(front: Front, request: web.Request) -> Answer:
    user = await Users(front.engine.pool).by_id(request.match_info["user"])
    if user is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(_shown(user))


async def change_user(front: Front, request: web.Request) -> Answer:
    actor = front.caller(request).user_id
    body = await front.bodies.json(request, _body_decoder)
    ended = await Accounts.of(front.engine).administer(
        actor, request.match_info["user"], role=body.role, blocked=body.blocked
    )
    if ended is None:
        raise Refusal(Code.NOT_FOUND)
    front.revocations.note(ended.user.user_id, ended.tokens_from)
    return personal(_shown(ended.user))


def _shown(user: User) -> ShownUser:
    return ShownUser(
        user_id=user.user_id,
        name=user.name,
        role=user.role,
        language=user.language,
        email_verified=user.email_verified_at is not None,
        local_login=user.password_hash is not None,
        created_at=_text(user.created_at) or "",
        email=user.email,
        blocked_at=_text(user.blocked_at),
        deleted_at=_text(user.deleted_at),
    )


def _text(at: datetime | None) -> str | None:
    return None if at is None else time_text(int(at.timestamp()) * 1000)


_TAG: Final = "Users"

ROUTES = (
    Route(
        "GET",
        "/v1/admin/users",
        list_users,
        access=Access.SUPPORT,
        spec=Spec(tag=_TAG, summary="Find users", query=UsersQuery, answers={200: UsersPage}),
    ),
    Route(
        "GET",
        "/v1/admin/users/{user}",
        show_user,
        access=Access.SUPPORT,
        spec=Spec(
            tag=_TAG, summary="Look at a user", answers={200: ShownUser}, codes=(Code.NOT_FOUND,)
        ),
    ),
    Route(
        "PATCH",
        "/v1/admin/users/{user}",
        change_user,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Change a user's role, block or unblock",
            description="The user's sessions end. Nobody changes his own account so.",
            body=AdministerBody,
            answers={200: ShownUser},
            codes=(Code.NOT_FOUND, Code.CONFLICT),
        ),
    ),
)
