"""`doorbuster work`: one worker process."""

import asyncio
import logging
import os
import signal

import typer
import uvloop

from api.cli.logs import log_to_stderr
from api.http_client import AioHttpClient
from api.loops import SHOP_CONNECTIONS_MAX, shop_loops
from engine.config import Settings, read_settings
from engine.core import Engine
from engine.payment.providers import make_providers
from engine.runtime import resolve_settings
from engine.worker import Worker

logger = logging.getLogger(__name__)

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command()
def work() -> None:
    """Run one worker: it drains reservations into Postgres, has them paid, and expires the overdue.

    One is enough for most sales; give further ones a DOORBUSTER_WORKER_NAME of their own. SIGTERM
    or Ctrl-C stores what is left, then stops. `doorbuster up` runs a worker by itself.
    """
    log_to_stderr()
    uvloop.run(_work(resolve_settings(read_settings(), ["redis_url", "postgres_url"])))
    logger.info("Stopped.", extra={"action": "worker_stopped"})


async def _work(settings: Settings) -> None:
    engine = await Engine.open(settings)
    try:
        async with (
            AioHttpClient(connections_max=settings.pay_concurrency_max) as http,
            AioHttpClient(connections_max=SHOP_CONNECTIONS_MAX) as shop_http,
        ):
            providers = make_providers(settings, http, engine.clock)
            worker = Worker(engine, providers, shop_loops(engine, shop_http))
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, worker.stop)
            logger.info(
                "Worker %s works as process %d.",
                settings.worker_name,
                os.getpid(),
                extra={"action": "worker_ready"},
            )
            await worker.run()
    finally:
        await engine.close()
