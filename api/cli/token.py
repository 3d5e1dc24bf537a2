"""`doorbuster token`: tokens for buyers and operators, for trying out and for load tests."""

import sys
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Final

import typer

from api.cli.minting import mint
from api.tokens import Role
from engine.clock import SystemClock
from engine.config import read_settings
from engine.errors import Invalid
from engine.model import USER_ID
from engine.runtime import resolve_settings

COUNT_MAX: Final = 1_000_000
HOURS_MAX: Final = 24 * 366
SECONDS_PER_HOUR: Final = 3600
LINES_AT_ONCE: Final = 1000  # A write per line would cost as much as the line.

HELP: Final = """
Print an access token, or many: one line each.

* `doorbuster token --user ada` for a buyer
* `doorbuster token --user olga --role operator` for the admin calls
* `doorbuster token --count 1000 --prefix load > tokens.txt` for the buyers load-0 … load-999

A million take a few seconds and 200 MB of disk; they are written as they are made.

Signed with DOORBUSTER_SECRET, else with the secret in the data folder.
"""

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command(help=HELP)
def token(
    user: Annotated[str | None, typer.Option(help="Whose token.", metavar="ID")] = None,
    role: Annotated[Role, typer.Option(help="What it allows.")] = Role.BUYER,
    hours: Annotated[float, typer.Option(help="How long it is valid.", max=HOURS_MAX)] = 12,
    count: Annotated[
        int | None, typer.Option(help="This many, of different users.", min=1, max=COUNT_MAX)
    ] = None,
    prefix: Annotated[str, typer.Option(help="Of the users' ids, with --count.")] = "buyer",
) -> None:
    if (user is None) == (count is None):
        raise typer.BadParameter("give either --user or --count")
    if not hours > 0:
        raise typer.BadParameter("must be more than 0", param_hint="--hours")
    users = [user] if user is not None else _users(prefix, count or 0)
    # The last of many has the longest id.
    if not USER_ID.fullmatch(user if user is not None else f"{prefix}-{(count or 1) - 1}"):
        raise Invalid("user", "must be 1 to 128 printable ASCII characters without spaces")
    secret = resolve_settings(read_settings(), ["secret"]).secret
    assert secret is not None
    _print(mint(secret, SystemClock(), users, role, int(hours * SECONDS_PER_HOUR)))


def _users(prefix: str, count: int) -> Iterable[str]:
    return (f"{prefix}-{number}" for number in range(count))


def _print(tokens: Iterable[str]) -> None:
    lines = iter(tokens)
    while some := list(islice(lines, LINES_AT_ONCE)):
        sys.stdout.write("\n".join(some) + "\n")
