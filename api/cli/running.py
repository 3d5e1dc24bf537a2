"""Opens the running engine for a command, and closes it."""

import getpass
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop

from engine.config import read_settings
from engine.core import Engine
from engine.runtime import resolve_settings

Result = TypeVar("Result")


@asynccontextmanager
async def running_engine() -> AsyncIterator[Engine]:
    """The engine of the settings and the data folder. Raises ConfigError where none is known."""
    engine = await Engine.open(resolve_settings(read_settings()))
    try:
        yield engine
    finally:
        await engine.close()


def on_engine(action: Callable[[Engine], Coroutine[Any, Any, Result]]) -> Result:
    """The action's result on the running engine."""

    # The command says itself what happened; log lines are for processes that serve.
    logging.getLogger().addHandler(logging.NullHandler())

    async def run() -> Result:
        async with running_engine() as engine:
            return await action(engine)

    return uvloop.run(run())


def actor() -> str:
    """Who acts, for the audit log: the user of this machine."""
    return f"cli:{getpass.getuser()}"
