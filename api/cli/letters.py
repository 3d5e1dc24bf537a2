"""`doorbuster letters`: what was given up after many tries, and waits for a person."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.cli.running import actor, on_engine
from engine.core import Engine
from engine.errors import Invalid
from engine.store.letters import dismiss_letter, list_letters

BODY_SHOWN_MAX = 200  # Characters of a letter's body.

app = typer.Typer(
    help="Dead letters: stream entries, outbox messages and webhooks given up after many tries.",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("list")
def list_() -> None:
    """List the letters that still alarm (`doorbuster check` fails because of them), newest first."""
    Console().print(on_engine(_table))


@app.command()
def dismiss(
    letter_id: Annotated[int, typer.Argument(help="Which one.", metavar="LETTER")],
    reason: Annotated[str, typer.Option(help="What was done about it, for the audit log.")],
) -> None:
    """End a letter's alarm, once you have dealt with what it was about. It is kept.

    Example: `doorbuster letters dismiss 7 --reason "refunded by hand, ticket 4711"`
    """
    if not on_engine(lambda engine: _dismiss(engine, letter_id, reason)):
        raise Invalid("", f"No letter {letter_id} waits.")
    print(f"Letter {letter_id} is dismissed.")


async def _dismiss(engine: Engine, letter_id: int, reason: str) -> bool:
    async with engine.pool.acquire() as connection:
        return await dismiss_letter(connection, letter_id, actor(), reason)


async def _table(engine: Engine) -> Table | Text:
    async with engine.pool.acquire() as connection:
        letters = await list_letters(connection)
    if not letters:
        return Text("No dead letters.")
    table = Table(box=None, pad_edge=False)
    for title in ("letter", "from", "sale", "reference", "when", "error", "body"):
        table.add_column(title, overflow="fold")
    for letter in letters:
        table.add_row(
            str(letter["letter_id"]),
            letter["source"],
            letter["sale_id"] or "",
            letter["reference"],
            f"{letter['at']:%Y-%m-%d %H:%M:%S}",
            Text(letter["error"]),
            Text(letter["body"].decode(errors="replace")[:BODY_SHOWN_MAX]),
        )
    return table
