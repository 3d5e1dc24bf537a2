"""`doorbuster mails`: what buyers were written, what waits, and what was given up."""

from typing import Annotated, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from api.cli.running import actor, on_engine
from api.mail.log import Listed, list_mails, retry_failed
from api.mail.templates import write
from engine.core import Engine

COUNT_MAX: Final = 1000

HELP: Final = """
Show the newest mails, with their text as long as it is kept.

* `doorbuster mails` in the demo, where no mail server takes them: their codes are here
* `doorbuster mails --failed` for those that were given up, and why
* `doorbuster mails --retry` sends those once more

Once a mail server has taken a mail, its text is forgotten: it may hold a link that logs in.
"""

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command(help=HELP)
def mails(
    count: Annotated[int, typer.Option(help="How many.", min=1, max=COUNT_MAX)] = 10,
    failed: Annotated[bool, typer.Option("--failed", help="Only those given up.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Send those given up again.")] = False,
) -> None:
    if retry:
        print(
            f"{on_engine(lambda engine: retry_failed(engine.pool, actor()))} mails are sent again."
        )
        return
    Console().print(on_engine(lambda engine: _shown(engine, count, failed)))


async def _shown(engine: Engine, count: int, failed: bool) -> RenderableType:
    found = await list_mails(engine.pool, state="failed" if failed else None, rows_max=count)
    if not found:
        return Text("No mails.")
    return Group(*(_one(mail) for mail in reversed(found)))


def _one(mail: Listed) -> RenderableType:
    head = Table(box=None, pad_edge=False, show_header=False)
    head.add_row(f"mail {mail.mail_id}", f"to {mail.recipient}", f"{mail.created_at:%F %T}")
    head.add_row(mail.kind, mail.language, mail.state)
    if mail.last_error:
        head.add_row("", Text(mail.last_error))
    if not mail.content:
        return Group(head, Text("(its text is forgotten)\n"))
    written = write(mail)
    # No markup, and no wrapping: a link has to stay whole.
    return Group(
        head, Text(f"\n{written.subject}\n\n{written.text}", no_wrap=True, overflow="ignore")
    )
