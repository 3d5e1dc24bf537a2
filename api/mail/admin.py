"""The calls of operators and support on mails: which went out, which were given up. Never their text."""

from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web

from api.answers import Answer, personal, time_text
from api.front import Front
from api.mail.log import Listed, list_mails, retry_failed
from api.paging import CURSOR_LENGTH_MAX, PAGE_DEFAULT, PAGE_MAX, cursor, cursor_text
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Spec


class MailsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which mails, the newest first."""

    state: Literal["waiting", "sent", "failed"] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    after: Annotated[str, msgspec.Meta(max_length=CURSOR_LENGTH_MAX)] | None = None


class ShownMail(msgspec.Struct, frozen=True, omit_defaults=True):
    """A mail without its text: that may hold a link that logs in."""

    mail_id: int
    kind: str
    recipient: str
    language: str
    state: str
    attempts: int
    created_at: str
    last_error: str | None = None


class MailsPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some of the mails; `next` is `after` of the following page."""

    mails: list[ShownMail]
    next: str | None = None


class RetriedBody(msgspec.Struct, frozen=True):
    """How many mails are sent once more."""

    retried: int


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last mail of a page."""

    mail_id: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


_end_decoder: Final = msgspec.json.Decoder(PageEnd)


async def show_mails(front: Front, request: web.Request) -> Answer:
    query = read_query(request, MailsQuery)
    end = cursor(request, _end_decoder)
    mails = await list_mails(
        front.engine.pool,
        state=query.state,
        before=end.mail_id if end else None,
        rows_max=query.limit,
    )
    following = cursor_text(PageEnd(mails[-1].mail_id)) if len(mails) == query.limit else None
    return personal(MailsPage([_shown(mail) for mail in mails], following))


async def retry_mails(front: Front, request: web.Request) -> Answer:
    actor = front.caller(request).user_id
    await front.bodies.none(request)
    return personal(RetriedBody(await retry_failed(front.engine.pool, actor)))


def _shown(mail: Listed) -> ShownMail:
    return ShownMail(
        mail.mail_id,
        mail.kind,
        mail.recipient,
        mail.language,
        mail.state,
        mail.attempts,
        time_text(int(mail.created_at.timestamp()) * 1000),
        mail.last_error,
    )


_TAG: Final = "Admin: mails"

ROUTES = (
    Route(
        "GET",
        "/v1/admin/mails",
        show_mails,
        access=Access.SUPPORT,
        spec=Spec(
            tag=_TAG,
            summary="Mails and what became of them",
            query=MailsQuery,
            answers={200: MailsPage},
        ),
    ),
    Route(
        "POST",
        "/v1/admin/mails/retries",
        retry_mails,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Send those once more that were given up",
            answers={200: RetriedBody},
        ),
    ),
)
