"""A server of somebody else's, that says what the test wants and remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass
class Service:
    """What it answers to POSTs at `url`. `says` is sent as JSON, bytes as they are."""

    status: int = 200
    says: object = field(default_factory=dict)
    silent: bool = False
    asked: list[tuple[str, bytes]] = field(default_factory=list)  # (content type, body)
    url: str = ""
    _ends: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.content_type, await request.read()))
        if self.silent:
            await self._ends.wait()
        body = self.says if isinstance(self.says, bytes) else json.dumps(self.says).encode()
        return web.Response(status=self.status, body=body)

    def end(self) -> None:
        self._ends.set()


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    """One that listens on a port of its own."""
    made = Service()
    app = web.Application()
    app.router.add_post("/ask", made.answer)
    async with TestServer(app) as server:
        made.url = str(server.make_url("/ask"))
        yield made
        made.end()
