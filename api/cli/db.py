"""`doorbuster db`: the schema in Postgres."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import typer
import uvloop

from engine.config import read_settings
from engine.runtime import resolve_settings
from engine.store import migrate
from engine.store.database import Connection, connect

app = typer.Typer(
    help="Look after the schema in Postgres. `up` upgrades it by itself.",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def upgrade() -> None:
    """Apply the migrations that are missing, in order. Safe to repeat, and to run twice at once."""
    applied = uvloop.run(_upgrade())
    for migration in applied:
        print(f"Applied {migration.name}.")
    if not applied:
        print("The schema is up to date.")


@app.command()
def status() -> None:
    """Show the migrations that are missing. Fails if there are any, so that a deploy can ask."""
    missing = uvloop.run(_pending())
    for migration in missing:
        print(f"Missing {migration.name}.")
    if missing:
        raise typer.Exit(1)
    print("The schema is up to date.")


async def _upgrade() -> list[migrate.Migration]:
    async with _connection() as connection:
        return await migrate.upgrade(connection)


async def _pending() -> list[migrate.Migration]:
    async with _connection() as connection:
        return await migrate.pending(connection)


@asynccontextmanager
async def _connection() -> AsyncIterator[Connection]:
    url = resolve_settings(read_settings(), ["postgres_url"]).postgres_url
    assert url is not None
    connection = await connect(url)
    try:
        yield connection
    finally:
        await connection.close()
