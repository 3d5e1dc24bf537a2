"""The HTTP client of the engine and of the sandbox: pooled, bounded, with one kind of failure."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)

from engine.errors import ProviderUnavailable
from engine.payment.http import ANSWER_BYTES_MAX, HttpReply

TIMEOUT_SECONDS: Final = 5.0


class AioHttpClient:
    """Implements `engine.payment.http.HttpClient`. Opens its connections when first used."""

    def __init__(self, *, connections_max: int, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._connections_max = connections_max
        self._timeout = ClientTimeout(total=timeout_seconds)
        self._session: ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        headers = {"Content-Type": "application/json", **headers}
        return await self._send("POST", url, headers, body, ANSWER_BYTES_MAX)

    async def get(
        self, url: str, headers: Mapping[str, str], *, bytes_max: int = ANSWER_BYTES_MAX
    ) -> HttpReply:
        return await self._send("GET", url, headers, None, bytes_max)

    async def close(self) -> None:
        """Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        bytes_max: int,
    ) -> HttpReply:
        session = self._open()
        try:
            async with session.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return HttpReply(
                    response.status, await _read(response, bytes_max), response.headers
                )
        except (ClientError, TimeoutError, OSError, UnicodeError) as error:  # No name to look up.
            reason = str(error) or type(error).__name__
            raise ProviderUnavailable(f"{url} did not answer: {reason}") from error

    def _open(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=self._connections_max),
                timeout=self._timeout,
                cookie_jar=DummyCookieJar(),
            )
        return self._session


async def _read(response: ClientResponse, bytes_max: int) -> bytes:
    """The body. Raises ProviderUnavailable if it has no end in sight."""
    try:
        await response.content.readexactly(bytes_max)
    except asyncio.IncompleteReadError as end:
        return end.partial
    raise ProviderUnavailable(f"{response.url} answered with too long a body.")
