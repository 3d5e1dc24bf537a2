"""The calls on one's own account: register, prove the e-mail, look, change, leave."""

from typing import Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front
from api.language import language_of
from api.patience import reading
from api.problems import Code, FieldError, Refusal, invalid
from api.routing import Route
from api.spec import LOCATION, Access, Spec
from api.users.accounts import Accounts, Ended
from api.users.bodies import (
    ChangeBody,
    DeleteBody,
    EmailBody,
    RegisterBody,
    TokenBody,
    UserBody,
    user_body,
)
from api.users.granting import logged_out, no_content
from api.users.links import Purpose
from api.users.store import User, Users
from engine.errors import Conflict

_register_decoder: Final = msgspec.json.Decoder(RegisterBody)
_token_decoder: Final = msgspec.json.Decoder(TokenBody)
_email_decoder: Final = msgspec.json.Decoder(EmailBody)
_change_decoder: Final = msgspec.json.Decoder(ChangeBody)
_delete_decoder: Final = msgspec.json.Decoder(DeleteBody)

_NO_ACCOUNT: Final = "This user has no account here: the storefront keeps it."


async def register(front: Front, request: web.Request) -> Answer:
    front.admit_anonymous(request)
    body = await front.bodies.json(request, _register_decoder)
    async with reading():
        known = await Users(front.engine.pool).by_email(body.email)
    if known:
        raise Conflict("email_taken", "This e-mail is registered already.")
    password_hash = await front.passwords.hash(body.password)
    name = body.name or body.email.partition("@")[0]
    language = body.language or language_of(request)
    user = await Accounts.of(front.engine).register(body.email, password_hash, name, language)
    return personal(user_body(user), 201, ("Location", "/v1/users/me"))


async def verify_email(front: Front, request: web.Request) -> Answer:
    front.admit_anonymous(request)
    body = await front.bodies.json(request, _token_decoder)
    user = await Accounts.of(front.engine).verify_email(body.token)
    if user is None:
        raise Refusal(Code.LINK_INVALID)
    return personal(user_body(user))


async def mail_verification(front: Front, request: web.Request) -> Answer:
    """The same answer, after the same work, whoever's the e-mail is, if anybody's."""
    front.admit_anonymous(request)
    body = await front.bodies.json(request, _email_decoder)
    front.admit_login(body.email)
    await Accounts.of(front.engine).ask_for_link(Purpose.VERIFY, body.email)
    return no_content_yet()


async def show_me(front: Front, request: web.Request) -> Answer:
    return personal(await body_of_caller(front, request))


async def change_me(front: Front, request: web.Request) -> Answer:
    user = await own_account(front, request)
    body = await front.bodies.json(request, _change_decoder)
    if body.password is not None:
        user = await _change_password(front, user, body.password, body.current_password)
    values = {"name": body.name, "language": body.language}
    changes = {name: value for name, value in values.items() if value is not None}
    if changes:
        user = await Accounts.of(front.engine).change(user.user_id, **changes) or user
    return personal(user_body(user))


async def delete_me(front: Front, request: web.Request) -> Answer:
    user = await own_account(front, request)
    body = await front.bodies.optional_json(request, _delete_decoder, DeleteBody())
    await _check_password(front, user, body.password, "password")
    _note(front, await Accounts.of(front.engine).delete(user))
    return logged_out()


async def body_of_caller(front: Front, request: web.Request) -> UserBody:
    """What the caller may know of himself, be he registered here or not."""
    identity = front.caller(request)
    user = await Users(front.engine.pool).by_id(identity.user_id)
    return user_body(user) if user else UserBody(identity.user_id, identity.role.value)


async def own_account(front: Front, request: web.Request) -> User:
    """The caller's account. Raises Refusal where the storefront keeps it."""
    user_id = front.caller(request).user_id
    async with reading():
        user = await Users(front.engine.pool).by_id(user_id)
    if user is None:
        raise Refusal(Code.NOT_FOUND, _NO_ACCOUNT)
    return user


def no_content_yet() -> Answer:
    """202: a mail may come, or not."""
    return msgspec.structs.replace(no_content(), status=202)


async def _change_password(front: Front, user: User, password: str, current: str | None) -> User:
    await _check_password(front, user, current, "current_password")
    password_hash = await front.passwords.hash(password)
    ended = await Accounts.of(front.engine).change_password(user, password_hash)
    if ended is None:  # Somebody else was faster.
        raise Refusal(Code.WRONG_CREDENTIALS)
    _note(front, ended)
    return ended.user


async def _check_password(front: Front, user: User, password: str | None, field: str) -> None:
    """Lets those on who know the account's password, at the account's rate. Raises Refusal.

    Without one, the caller's session has to do for leaving; a password is set by mail only.
    """
    if user.password_hash is None:
        if field == "password":
            return
        detail = "the account has none yet: POST /v1/passwords/reset sends a link"
        raise Refusal.of(invalid([FieldError(field, detail)]))
    if password is None:
        raise Refusal.of(invalid([FieldError(field, "is needed")]))
    front.admit_login(user.email or user.user_id)  # Before anything is hashed.
    if not await front.passwords.verify(user.password_hash, password):
        raise Refusal(Code.WRONG_CREDENTIALS)


def _note(front: Front, ended: Ended) -> None:
    front.revocations.note(ended.user.user_id, ended.tokens_from)


_TAG: Final = "Users"

ROUTES = (
    Route(
        "POST",
        "/v1/users",
        register,
        measured=False,
        access=Access.PUBLIC,
        spec=Spec(
            tag=_TAG,
            summary="Register",
            description="A mail with a link that proves the e-mail is sent.",
            body=RegisterBody,
            answers={201: UserBody},
            tells={201: (LOCATION,)},
            codes=(Code.EMAIL_TAKEN,),
        ),
    ),
    Route(
        "POST",
        "/v1/users/verification",
        verify_email,
        access=Access.PUBLIC,
        spec=Spec(
            tag=_TAG,
            summary="Prove the e-mail by the token that was mailed",
            body=TokenBody,
            answers={200: UserBody},
            codes=(Code.LINK_INVALID,),
        ),
    ),
    Route(
        "POST",
        "/v1/users/verification/mail",
        mail_verification,
        access=Access.PUBLIC,
        spec=Spec(
            tag=_TAG,
            summary="Have the proving mail sent again",
            description="Always accepted: the answer does not tell whether the e-mail is known.",
            body=EmailBody,
            answers={202: None},
        ),
    ),
    Route(
        "GET",
        "/v1/users/me",
        show_me,
        access=Access.CALLER,
        spec=Spec(tag=_TAG, summary="Who am I", answers={200: UserBody}),
    ),
    Route(
        "PATCH",
        "/v1/users/me",
        change_me,
        measured=False,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG,
            summary="Change name, language or password",
            description="A new password needs the current one and ends all sessions, this one too.",
            body=ChangeBody,
            answers={200: UserBody},
            codes=(Code.NOT_FOUND, Code.WRONG_CREDENTIALS),
        ),
    ),
    Route(
        "DELETE",
        "/v1/users/me",
        delete_me,
        measured=False,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG,
            summary="Delete the account",
            description="The person is forgotten; orders and invoices stay, as the law wants.",
            body=DeleteBody,
            body_required=False,
            answers={204: None},
            codes=(Code.NOT_FOUND, Code.WRONG_CREDENTIALS),
        ),
    ),
)
