"""The `doorbuster` command itself: finds the command asked for, reports failures in one sentence.

Leaves every command to a module of its own, whose `app` is a typer application.
"""

import os
import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from engine.errors import DoorbusterError

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1  # Refused, or failed: a sentence on stderr says why.
EXIT_USAGE: Final = 2  # The command line itself is wrong.
EXIT_INTERRUPTED: Final = 130  # As shells count SIGINT.

# In the order of `--help`: name and module. A module is imported when its command runs.
COMMANDS: Final = {
    "up": "api.cli.up",
    "seed": "api.cli.seed",
    "sale": "api.cli.sale",
    "catalogue": "api.cli.catalogue",
    "reindex": "api.cli.reindex",
    "token": "api.cli.token",
    "rush": "api.cli.rush",
    "check": "api.cli.check",
    "recover": "api.cli.recover",
    "admission": "api.cli.admission",
    "queue": "api.cli.queue",
    "letters": "api.cli.letters",
    "reconcile": "api.cli.reconcile",
    "mails": "api.cli.mails",
    "user": "api.cli.user",
    "db": "api.cli.db",
    "serve": "api.cli.serve",
    "work": "api.cli.work",
    "sandbox": "api.cli.sandbox",
    "bench": "api.cli.bench",
}

HELP: Final = """
A flash-sale order engine: reserve atomically in Redis, keep every order in Postgres.

**First steps**

* `doorbuster up --demo` starts everything on this machine, with a shop to try it on.
* `doorbuster rush --sale demo --buyers 5000` sends a crowd against it.
* `doorbuster check` proves that nothing was oversold or lost.

Settings come from `DOORBUSTER_*` variables and the TOML file named by `DOORBUSTER_CONFIG`.
Commands find a running engine through its data folder, `DOORBUSTER_DATA_DIR` (`var`).

Exit codes: 0 done, 1 refused or failed (one sentence on stderr), 2 wrong command line.
"""


class LazyGroup(TyperGroup):
    """Imports the module of a command only when that command, or the list of all, is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = typer.main.get_command(import_module(module).app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyGroup,
    help=HELP,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version = import_module("importlib.metadata").version("doorbuster")
        typer.echo(f"doorbuster {version}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """What stands before the command."""


def main() -> None:
    """Runs the command line; ends the process with one of the exit codes above."""
    try:
        app(prog_name="doorbuster")
    except DoorbusterError as error:
        _complain(error)
        sys.exit(EXIT_FAILED)
    except BrokenPipeError:
        # The reader has seen enough, as in `doorbuster token --count 1000 | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _complain(error: DoorbusterError) -> None:
    for line in str(error).splitlines():
        print(f"doorbuster: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
