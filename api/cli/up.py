"""`doorbuster up`: the whole engine on this machine."""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from api.up.supervisor import Supervisor
from engine.clock import SystemClock
from engine.config import read_settings
from engine.ids import RandomIds

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command()
def up(
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="Make random secrets, load the demo shop, run a sandbox for payments."
        ),
    ] = False,
) -> None:
    """Run everything: Valkey and Postgres, migrations, fronts and a worker. Ctrl-C stops it in order.

    * `doorbuster up --demo` needs nothing else
    * `PORT` is read by `make run`; here it is `DOORBUSTER_PORT=9000 doorbuster up --demo`
    * `DOORBUSTER_REDIS_URL`, `DOORBUSTER_POSTGRES_URL`: use these servers instead of its own
    * `DOORBUSTER_FRONT_PROCESSES=4`: so many fronts (default: one per core)

    Data, logs and secrets are kept in `DOORBUSTER_DATA_DIR` (`var`); the next start goes on with them.
    """
    Supervisor(
        read_settings(),
        demo=demo,
        clock=SystemClock(),
        ids=RandomIds(),
        environ=os.environ,
        program=_program(),
        say=_say,
    ).run()


def _say(text: str) -> None:
    # A terminal that was closed, or a full disk behind `> file`, must not keep us from stopping.
    with suppress(OSError):
        print(text, flush=True)


def _program() -> str:
    """How this command can be called again from where it was called."""
    called = Path(sys.argv[0])
    if called.name != "doorbuster" or shutil.which("doorbuster") == str(called):
        return "doorbuster"
    return str(called)
