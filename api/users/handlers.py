"""The calls on users: register, log in, who am I."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal, time_text
from api.front import Front
from api.patience import reading
from api.problems import Code, Refusal
from api.routing import Route
from api.spec import Access
from api.tokens import TOKEN_SECONDS, Role
from api.users.passwords import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN
from api.users.store import User, Users
from engine.errors import Conflict

# Whether an address exists only its mailbox can say; this refuses what cannot be one (RFC 5321).
Email = Annotated[str, msgspec.Meta(pattern=r"^[!-?A-~]{1,64}@[!-?A-~]{1,189}\Z")]
Password = Annotated[
    str, msgspec.Meta(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)
]
Name = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,100}\Z")]


class RegisterBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/users. Without a name, the user goes by what stands before the @."""

    email: Email
    password: Password
    name: Name | None = None


class LoginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/sessions. Any password may be tried, but no endless one."""

    email: Annotated[str, msgspec.Meta(max_length=254)]
    password: Annotated[str, msgspec.Meta(max_length=PASSWORD_LENGTH_MAX)]


class UserBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user as shown to that user. Only `user_id` and `role` where a storefront keeps the rest."""

    user_id: str
    role: str
    email: str | None = None
    name: str | None = None
    created_at: str | None = None


class SessionBody(msgspec.Struct, frozen=True):
    """A fresh token."""

    token: str
    token_type: str
    expires_at: str
    user: UserBody


_register_decoder: Final = msgspec.json.Decoder(RegisterBody)
_login_decoder: Final = msgspec.json.Decoder(LoginBody)


async def register(front: Front, request: web.Request) -> Answer:
    front.admit_anonymous(request)
    body = await front.bodies.json(request, _register_decoder)
    users = Users(front.engine.pool)
    async with reading():
        known = await users.by_email(body.email)
    if known:
        raise Conflict("email_taken", "This e-mail is registered already.")
    password_hash = await front.passwords.hash(body.password)
    name = body.name or body.email.partition("@")[0]
    user = await users.add(front.engine.ids.new("usr"), body.email, password_hash, name)
    return personal(_user_body(user), 201, ("Location", "/v1/users/me"))


async def log_in(front: Front, request: web.Request) -> Answer:
    front.admit_anonymous(request)
    body = await front.bodies.json(request, _login_decoder)
    front.admit_login(body.email)  # Before anything is looked up or hashed.
    async with reading():
        user = await Users(front.engine.pool).by_email(body.email)
    matches = await front.passwords.verify(user.password_hash if user else None, body.password)
    if user is None or not matches:
        raise Refusal(Code.WRONG_CREDENTIALS)
    expires_ms = front.engine.clock.now_ms() + TOKEN_SECONDS * 1000
    session = SessionBody(
        token=front.tokens.issue(user.user_id, Role(user.role)),
        token_type="Bearer",  # noqa: S106
        expires_at=time_text(expires_ms // 1000 * 1000),
        user=_user_body(user),
    )
    return personal(session, 201)


async def show_me(front: Front, request: web.Request) -> Answer:
    identity = front.caller(request)
    user = await Users(front.engine.pool).by_id(identity.user_id)
    if user is None:
        return personal(UserBody(identity.user_id, identity.role.value))
    return personal(_user_body(user))


def _user_body(user: User) -> UserBody:
    created_ms = int(user.created_at.timestamp()) * 1000
    return UserBody(user.user_id, user.role, user.email, user.name, time_text(created_ms))


ROUTES = (
    Route("POST", "/v1/users", register, measured=False, access=Access.PUBLIC),
    Route("POST", "/v1/sessions", log_in, measured=False, access=Access.PUBLIC),
    Route("GET", "/v1/users/me", show_me, access=Access.CALLER),
)
