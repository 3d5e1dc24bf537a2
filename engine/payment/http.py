"""What a payment provider needs of HTTP. Leaves the client itself to the border that owns one."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class HttpReply(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes


class HttpClient(Protocol):
    """Pooled, with a bounded time-out. Raises ProviderUnavailable where no answer came."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        """The answer to a POST."""

    async def get(self, url: str, headers: Mapping[str, str]) -> HttpReply:
        """The answer to a GET."""
