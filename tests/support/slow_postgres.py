"""A Postgres that answers late, or not at all: a door before the real one that holds requests up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

SOCKET: Final = ".s.PGSQL.5432"
CHUNK_BYTES: Final = 65_536
HELD_MAX: Final = 4096  # Chunks that wait on one connection.


class SlowDoor:
    """Passes every request on `delay_seconds` after it came; the delay may change meanwhile."""

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self.delay_seconds = 0.0
        self._open = asyncio.Event()
        self._open.set()
        self._pumps: set[asyncio.Task[None]] = set()

    def shut(self) -> None:
        """No request passes until `reopen`."""
        self._open.clear()

    def reopen(self) -> None:
        self._open.set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._behind)
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_MAX)
        pumps = [self._hold(reader, held), self._release(held, server_writer)]
        for pump in [*pumps, self._pass(server_reader, writer)]:
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def close(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _hold(
        self, reader: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        now = asyncio.get_running_loop().time
        while data := await reader.read(CHUNK_BYTES):
            await held.put((now(), data))
        await held.put((now(), b""))

    async def _release(
        self, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        now = asyncio.get_running_loop().time
        while True:
            came, data = await held.get()
            await asyncio.sleep(max(0.0, came + self.delay_seconds - now()))
            await self._open.wait()
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def slow_door(postgres_url: str, folder: Path) -> AsyncIterator[tuple[SlowDoor, str]]:
    """A door before this server, and the URL that leads through it."""
    host = parse_qs(urlsplit(postgres_url).query)["host"][0]
    door = SlowDoor(str(Path(host) / SOCKET))
    server = await asyncio.start_unix_server(door.connected, folder / SOCKET)
    try:
        yield door, postgres_url.replace(host, str(folder))
    finally:
        server.close()
        await door.close()
        await server.wait_closed()
