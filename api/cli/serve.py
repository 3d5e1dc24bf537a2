"""`doorbuster serve`: one front process."""

import logging
import os

import typer

from api.cli.logs import log_to_stderr
from api.server import open_listener, run
from api.up.port import port_taken
from engine.config import Settings, read_settings
from engine.runtime import resolve_settings

logger = logging.getLogger(__name__)

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command()
def serve() -> None:
    """Run one front process, which answers HTTP on DOORBUSTER_HOST and DOORBUSTER_PORT.

    Start as many as there are cores: they share the port. SIGTERM or Ctrl-C finishes what is in
    flight, then stops. `doorbuster up` runs fronts by itself.
    """
    log_to_stderr()
    settings = resolve_settings(read_settings())
    try:
        listener = open_listener(settings.host, settings.port)
    except OSError as error:
        raise port_taken(settings.host, settings.port, error) from error
    run(settings, listener, lambda: _say_ready(settings))
    logger.info("Stopped.", extra={"action": "front_stopped"})


def _say_ready(settings: Settings) -> None:
    logger.info(
        "Front process %d serves on %s:%d.",
        os.getpid(),
        settings.host,
        settings.port,
        extra={"action": "front_ready"},
    )
