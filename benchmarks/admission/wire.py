"""A wire to Postgres that can be made slow: a proxy on a Unix socket. Bytes keep their order.

Each piece is handed on so many seconds after it came, in both directions, so the engine sees a
database whose every round trip takes twice as long, while the database itself stays as it is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

SOCKET: Final = ".s.PGSQL.5432"
READ_MAX: Final = 256 * 1024
PIECES_MAX: Final = 64  # on their way in one direction of one connection


class SlowWire:
    """Forwards connections to Postgres' socket, `delay_s` late in each direction."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._target = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0

    def url(self, postgres_url: str) -> str:
        """The URL that leads through the wire to where `postgres_url` leads."""
        parts = urlsplit(postgres_url)
        query = dict(parse_qsl(parts.query))
        self._target = str(Path(query["host"]) / SOCKET)
        return parts._replace(query=urlencode(query | {"host": str(self._folder)})).geturl()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, str(self._folder / SOCKET))
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, far_writer))
                group.create_task(self._forward(far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # One side has gone: so does the other.
        finally:
            for each in (writer, far_writer):
                if each is not None:
                    each.close()
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, until its end."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_MAX)

        async def hand_on() -> None:
            while True:
                at, data = await pieces.get()
                if (wait_s := at - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                if not data:
                    writer.write_eof()  # The other direction may go on.
                    return
                writer.write(data)
                await writer.drain()

        handing = loop.create_task(hand_on())
        try:
            while not handing.done():
                data = await reader.read(READ_MAX)
                await pieces.put((loop.time() + self.delay_s, data))
                if not data:
                    break
            await handing
        finally:
            handing.cancel()
