"""What a payment provider needs of HTTP. Leaves the client itself to the border that owns one."""

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

ANSWER_BYTES_MAX: Final = 1_048_576  # No provider's answer is longer, …
STATEMENT_BYTES_MAX: Final = 134_217_728  # … but a day's statement: 500,000 lines of 250 bytes.


class HttpReply(NamedTuple):
    """What a server answered. `headers` are found whatever the case of a name."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class HttpClient(Protocol):
    """Pooled, with a bounded time-out. Raises ProviderUnavailable where no answer came."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpReply:
        """The answer to a POST."""

    async def get(
        self, url: str, headers: Mapping[str, str], *, bytes_max: int = ANSWER_BYTES_MAX
    ) -> HttpReply:
        """The answer to a GET."""
