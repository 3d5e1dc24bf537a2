"""Keeps the port that the fronts share, so that nobody else takes it between two of their lives."""

import socket
from typing import Final

from engine.errors import DoorbusterError

ANY_ADDRESS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class PortTaken(DoorbusterError):
    """Somebody else listens there, or we may not."""


def hold_port(host: str, port: int) -> socket.socket:
    """A bound socket that never listens: processes of this user may listen beside it, others not.

    Port 0 becomes a free one. Raises PortTaken.
    """
    try:
        # First without sharing: it fails if anybody listens, even one that would share.
        with _bind(host, port, shared=False) as probe:
            port = probe.getsockname()[1]
        return _bind(host, port, shared=True)
    except OSError as error:
        raise port_taken(host, port, error) from error


def port_taken(host: str, port: int, error: OSError) -> PortTaken:
    """The sentence for an operator whose port cannot be had."""
    reason = (error.strerror or str(error)).lower()
    return PortTaken(
        f"Port {port} on {host} cannot be used ({reason}): "
        "stop what uses it, or choose another with PORT or DOORBUSTER_PORT."
    )


def free_port() -> int:
    """A port on loopback that nobody uses now."""
    with _bind("127.0.0.1", 0, shared=False) as probe:
        return int(probe.getsockname()[1])


def local_url(host: str, port: int) -> str:
    """How this machine reaches what listens on host and port."""
    address = ANY_ADDRESS.get(host, host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _bind(host: str, port: int, *, shared: bool) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        # Connections of an earlier run that linger are no reason to refuse.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
