"""A transport in memory, so that a protocol can be fed bytes without a socket, and its answers read."""

import asyncio
from collections import deque
from typing import Any, NamedTuple


class Said(NamedTuple):
    """One answer as it went out. A head that is no HTTP gives status 0 and the bytes as body."""

    status: int
    closes: bool
    body: bytes


class Wire(asyncio.Transport):
    """Keeps what is written; `deliver` feeds the protocol as a socket would, pauses included."""

    def __init__(self, protocol: Any) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._coming: deque[bytes] = deque()
        self._reading = True
        self.written = bytearray()
        self.closed = False
        protocol.connection_made(self)

    def deliver(self, data: bytes) -> None:
        self._coming.append(data)
        self._pass_on()

    def hang_up(self) -> None:
        """The client is gone."""
        if not self.closed:
            self.closed = True
            self._protocol.connection_lost(None)

    # What a protocol asks of its transport.

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._pass_on)

    def get_write_buffer_size(self) -> int:
        return 0

    def _pass_on(self) -> None:
        while self._coming and self._reading and not self.closed:
            self._protocol.data_received(self._coming.popleft())


def answers_in(data: bytes) -> list[Said]:
    """Every answer in what a server wrote."""
    found: list[Said] = []
    at = 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        lines = data[at:end].split(b"\r\n")
        if end < 0 or not lines[0].startswith(b"HTTP/1."):
            return [*found, Said(0, closes=True, body=data[at:])]
        fields = {
            name.lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines[1:])
        }
        length = int(fields.get(b"content-length", b"0"))
        at = end + 4 + length
        closes = fields.get(b"connection", b"").lower() == b"close"
        found.append(Said(int(lines[0][9:12]), closes, data[end + 4 : at]))
    return found
