"""`doorbuster user`: who may operate the shop, and who may not come in."""

from typing import Annotated

import typer

from api.cli.running import actor, on_engine
from api.tokens import Role
from api.users.accounts import Accounts
from api.users.store import User, Users
from engine.core import Engine
from engine.errors import Invalid

Email = Annotated[str, typer.Argument(help="Whose account.", metavar="EMAIL")]

app = typer.Typer(
    help="Users: give a role, block, unblock. Every change ends the user's sessions and is audited.",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def role(
    email: Email,
    role: Annotated[Role, typer.Argument(help="What the user may do from now on.")],
) -> None:
    """Give a registered user a role: the first operator is made so.

    Example: `doorbuster user role ada@example.com operator`
    """
    user = on_engine(lambda engine: _administer(engine, email, role=role, blocked=None))
    print(f"{user.email} ({user.user_id}) is {user.role}.")


@app.command()
def block(email: Email) -> None:
    """Keep a user out: no login, and the sessions end within about a second."""
    user = on_engine(lambda engine: _administer(engine, email, role=None, blocked=True))
    print(f"{user.email} ({user.user_id}) is blocked.")


@app.command()
def unblock(email: Email) -> None:
    """Let a user log in again."""
    user = on_engine(lambda engine: _administer(engine, email, role=None, blocked=False))
    print(f"{user.email} ({user.user_id}) may log in.")


async def _administer(
    engine: Engine, email: str, *, role: Role | None, blocked: bool | None
) -> User:
    user = await Users(engine.pool).by_email(email)
    ended = None
    if user is not None:
        accounts = Accounts.of(engine)
        ended = await accounts.administer(actor(), user.user_id, role=role, blocked=blocked)
    if ended is None:
        raise Invalid("", f"Nobody is registered as {email}.")
    return ended.user
