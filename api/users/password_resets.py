"""The calls of those who forgot their password. Neither tells whether an e-mail is known here."""

from typing import Final

import msgspec
from aiohttp import web

from api.answers import Answer
from api.front import Front
from api.problems import Code, Refusal
from api.routing import Route
from api.spec import Access, Spec
from api.users.accounts import Accounts
from api.users.bodies import EmailBody, ResetBody
from api.users.granting import logged_out
from api.users.handlers import no_content_yet
from api.users.links import Purpose

_email_decoder: Final = msgspec.json.Decoder(EmailBody)
_reset_decoder: Final = msgspec.json.Decoder(ResetBody)


async def mail_reset(front: Front, request: web.Request) -> Answer:
    front.admit_anonymous(request)
    body = await front.bodies.json(request, _email_decoder)
    front.admit_login(body.email)
    await Accounts.of(front.engine).ask_for_link(Purpose.RESET, body.email)
    return no_content_yet()


async def reset_password(front: Front, request: web.Request) -> Answer:
    front.admit_anonymous(request)
    body = await front.bodies.json(request, _reset_decoder)
    accounts = Accounts.of(front.engine)
    if not await accounts.is_reset_good(body.token):  # Before anything is hashed.
        raise Refusal(Code.LINK_INVALID)
    ended = await accounts.reset_password(body.token, await front.passwords.hash(body.password))
    if ended is None:
        raise Refusal(Code.LINK_INVALID)
    front.revocations.note(ended.user.user_id, ended.tokens_from)
    return logged_out()


_TAG: Final = "Users"

ROUTES = (
    Route(
        "POST",
        "/v1/passwords/reset",
        mail_reset,
        access=Access.PUBLIC,
        spec=Spec(
            tag=_TAG,
            summary="Have a link mailed that sets a new password",
            description="Always accepted: the answer does not tell whether the e-mail is known.",
            body=EmailBody,
            answers={202: None},
        ),
    ),
    Route(
        "POST",
        "/v1/passwords",
        reset_password,
        measured=False,
        access=Access.PUBLIC,
        spec=Spec(
            tag=_TAG,
            summary="Set a new password by the token that was mailed",
            description="Ends all sessions.",
            body=ResetBody,
            answers={204: None},
            codes=(Code.LINK_INVALID,),
        ),
    ),
)
