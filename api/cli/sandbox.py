"""`doorbuster sandbox`: a payment gateway and a carrier to try the engine on."""

import asyncio
import logging
import os
import signal

import typer
import uvloop

from api.carriers.sandbox import run_carrier
from api.cli.logs import log_to_stderr
from api.sandbox.gateway import run_sandbox
from engine.config import Settings, read_settings
from engine.runtime import resolve_settings

logger = logging.getLogger(__name__)

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command()
def sandbox() -> None:
    """Run a payment gateway that moves no money, on DOORBUSTER_SANDBOX_URL.

    It charges, fails, delays and repeats as a payment's options ask, and tells the fronts by signed
    webhooks. With DOORBUSTER_CARRIER_URL and DOORBUSTER_CARRIER_SECRET it also runs a carrier there
    whose parcels move by themselves. `doorbuster up --demo` runs both.
    """
    log_to_stderr()
    uvloop.run(_serve(resolve_settings(read_settings(), ["sandbox_url", "sandbox_secret"])))
    logger.info("Stopped.", extra={"action": "sandbox_stopped"})


async def _serve(settings: Settings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    logger.info(
        "The sandbox gateway serves on %s as process %d.",
        settings.sandbox_url,
        os.getpid(),
        extra={"action": "sandbox_ready"},
    )
    servers = [run_sandbox(settings, stopped)]
    if settings.carrier_url is not None and settings.carrier_secret is not None:
        logger.info("The sandbox carrier serves on %s.", settings.carrier_url)
        servers.append(run_carrier(settings, stopped))
    await asyncio.gather(*servers)
