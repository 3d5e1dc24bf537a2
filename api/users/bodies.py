"""What the calls on users take and give. Decides nothing."""

from typing import Annotated, Literal

import msgspec

from api.answers import time_text
from api.mail.queue import RECIPIENT, RECIPIENT_LENGTH_MAX
from api.users.links import TOKEN_LENGTH_MAX
from api.users.passwords import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN
from api.users.sessions import REFRESH_LENGTH_MAX
from api.users.store import User

# Whether an address exists only its mailbox can say; this refuses what cannot be one.
Email = Annotated[
    str, msgspec.Meta(max_length=RECIPIENT_LENGTH_MAX, pattern=rf"^(?:{RECIPIENT.pattern})\Z")
]
# Any may be tried; in ASCII there is one small letter to each, here and in Postgres, whatever its locale.
TriedEmail = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{0,254}\Z")]
Password = Annotated[
    str, msgspec.Meta(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)
]
# Any may be tried, but no endless one.
Tried = Annotated[str, msgspec.Meta(max_length=PASSWORD_LENGTH_MAX)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,100}\Z")]
Language = Literal["en", "zh-CN"]
LinkToken = Annotated[
    str, msgspec.Meta(min_length=1, max_length=TOKEN_LENGTH_MAX, pattern=r"^[!-~]+\Z")
]
RefreshToken = Annotated[
    str, msgspec.Meta(min_length=1, max_length=REFRESH_LENGTH_MAX, pattern=r"^[!-~]+\Z")
]


class RegisterBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/users. Without a name, the user goes by what stands before the @;
    without a language, mails are in that of the request."""

    email: Email
    password: Password
    name: Name | None = None
    language: Language | None = None


class LoginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/sessions. With `cookie`, a browser gets cookies in place of tokens."""

    email: TriedEmail
    password: Tried
    cookie: bool = False


class RefreshBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which session. Without a token: that of the browser's cookie."""

    refresh_token: RefreshToken | None = None


class ChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PATCH /v1/users/me: what is left out stays. A new password ends all sessions."""

    name: Name | None = None
    language: Language | None = None
    password: Password | None = None
    current_password: Tried | None = None


class DeleteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of DELETE /v1/users/me. Needed where there is a password."""

    password: Tried | None = None


class EmailBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to send a link."""

    email: Email


class TokenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token out of a mail."""

    token: LinkToken


class ResetBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/passwords."""

    token: LinkToken
    password: Password


class UserBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A user as shown to that user. Only `user_id` and `role` where a storefront keeps the rest."""

    user_id: str
    role: str
    email: str | None = None
    name: str | None = None
    created_at: str | None = None
    email_verified: bool | None = None
    local_login: bool | None = None
    language: str | None = None


class SessionBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A session that was begun or goes on: its tokens, or for a browser the csrf_token."""

    session_id: str
    expires_at: str
    refresh_expires_at: str
    user: UserBody
    token: str | None = None
    token_type: str | None = None
    refresh_token: str | None = None
    csrf_token: str | None = None


class ShownSession(msgspec.Struct, frozen=True):
    """One of the places where the caller is logged in."""

    session_id: str
    created_at: str
    used_at: str
    expires_at: str
    user_agent: str
    by_cookie: bool


class SessionsBody(msgspec.Struct, frozen=True):
    """Where the caller is logged in."""

    sessions: list[ShownSession]


class CurrentBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who calls; for a browser also its session and what its unsafe calls have to show."""

    user: UserBody
    session_id: str | None = None
    csrf_token: str | None = None


def user_body(user: User) -> UserBody:
    created_ms = int(user.created_at.timestamp()) * 1000
    return UserBody(
        user.user_id,
        user.role,
        user.email,
        user.name,
        time_text(created_ms),
        user.email_verified_at is not None,
        user.password_hash is not None,
        user.language,
    )
