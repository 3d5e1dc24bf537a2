"""`doorbuster sandbox`: a payment gateway and a carrier to try the engine on."""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from api.carriers.sandbox import run_carrier
from api.cli.logs import log_to_stderr
from api.sandbox.gateway import run_sandbox
from api.sandbox.gateway_keys import keep_gateway_keys
from engine.config import Settings, read_settings
from engine.runtime import resolve_settings

logger = logging.getLogger(__name__)

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command()
def sandbox(
    print_settings: Annotated[
        bool,
        typer.Option(
            "--print-settings",
            help="Print the engine's settings for Alipay, WeChat Pay and Stripe here, as TOML; end.",
        ),
    ] = False,
) -> None:
    """Run payment gateways that move no money, on DOORBUSTER_SANDBOX_URL.

    It charges, fails, delays and repeats as a payment's options ask, and tells the fronts by signed
    webhooks. Below it speak Alipay (`/alipay`), WeChat Pay (`/wechatpay`) and Stripe (`/stripe`) with
    keys made once in the data folder. A buyer pays with `curl -d decision=approve` at the address
    of the payment's action (Stripe: `/stripe/pay/<client_secret>`). They misbehave on request:
    `curl -X PUT -d '{"mischief": "duplicate"}' <sandbox>/alipay/mood`.

    With DOORBUSTER_CARRIER_URL and DOORBUSTER_CARRIER_SECRET it also runs a carrier there
    whose parcels move by themselves. `doorbuster up --demo` runs both.
    """
    settings = resolve_settings(read_settings(), ["sandbox_url", "sandbox_secret"])
    if print_settings:
        _print_settings(settings)
        return
    log_to_stderr()
    uvloop.run(_serve(settings))
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
    keys = keep_gateway_keys(Path(settings.data_dir))
    servers = [run_sandbox(settings, stopped, keys=keys)]
    if settings.carrier_url is not None and settings.carrier_secret is not None:
        logger.info("The sandbox carrier serves on %s.", settings.carrier_url)
        servers.append(run_carrier(settings, stopped))
    await asyncio.gather(*servers)


def _print_settings(settings: Settings) -> None:
    keys = keep_gateway_keys(Path(settings.data_dir))
    for name, value in keys.settings((settings.sandbox_url or "").rstrip("/")).items():
        print(f'{name} = "{value}"')
