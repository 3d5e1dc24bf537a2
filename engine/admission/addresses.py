"""Finds out whose address a request has, through the proxies that are trusted.

Leaves rates to the throttles and rules to `access`. Does no I/O.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, Self, TypeAlias, TypeVar

from engine.config import ForwardedHeader, Network, Settings, read_networks

# A household or a host has a /64 and chooses the rest by itself (RFC 4291, RFC 8981).
CLIENT_PREFIX6: Final = 64
ADDRESSES_MAX: Final = 16_384  # Remembered; with chains as long as they may be, about 20 MB.
CHAIN_MAX: Final = 1024  # Characters from the right. Our own proxies write no more than that.

Key = TypeVar("Key")
Value = TypeVar("Value")
Address: TypeAlias = IPv4Address | IPv6Address

# One pair of a Forwarded element (RFC 7239 §4), and what has to follow it.
_PAIR = re.compile(r"""\s*([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*))\s*(?:;|$)""")


class _Peer(NamedTuple):
    address: str
    trusted: bool


class AddressReader:
    """Names clients by their address; the same name for whoever shares one.

    An IPv4 address is its own name; an IPv6 address goes by its /64, as in `2001:db8::/64`, unless
    it is unthrottled. The name of a Unix socket's peer is empty.
    """

    def __init__(
        self,
        *,
        trusted: Sequence[Network] = (),
        unthrottled: Sequence[Network] = (),
        header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR,
    ) -> None:
        self._trusted = trusted
        self._unthrottled_networks = unthrottled
        self._reads_forwarded = header is ForwardedHeader.FORWARDED
        self._peers: dict[str, _Peer] = {}
        self._clients: dict[tuple[str, str], str] = {}
        self._unthrottled: dict[str, bool] = {}

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            trusted=read_networks(settings.trusted_proxies),
            unthrottled=read_networks(settings.unthrottled_networks),
            header=settings.forwarded_header,
        )

    def client(self, peer: str, forwarded: str | None, x_forwarded_for: str | None) -> str:
        """The client's name: the rightmost hop that is no trusted proxy.

        Whatever stands left of it anybody may have written. The peer itself where a trusted proxy
        says nothing, or nothing that is an address.
        """
        known = self._peers.get(peer) or self._learn_peer(peer)
        if not known.trusted:
            return known.address
        chain = forwarded if self._reads_forwarded else x_forwarded_for
        if not chain:
            return known.address
        if len(chain) > CHAIN_MAX:
            chain = f"?{chain[-CHAIN_MAX:]}"  # What is cut in two is no address.
        return self._clients.get((peer, chain)) or self._learn_client(peer, chain, known.address)

    def is_unthrottled(self, address: str) -> bool:
        """Whether the address of that name is nobody's in particular: a socket, a load generator."""
        known = self._unthrottled.get(address)
        return self._learn_unthrottled(address) if known is None else known

    def _learn_peer(self, peer: str) -> _Peer:
        address = read_address(peer)
        known = _Peer(peer, trusted=False)
        if address is not None:
            known = _Peer(self._name(address), self._is_trusted(address))
        return _keep(self._peers, peer, known)

    def _learn_client(self, peer: str, chain: str, otherwise: str) -> str:
        address = self._rightmost_stranger(chain)
        name = otherwise if address is None else self._name(address)
        return _keep(self._clients, (peer, chain), name)

    def _rightmost_stranger(self, chain: str) -> Address | None:
        """None: there is no saying. The leftmost hop if all are trusted."""
        address = None
        for hop in self._hops(chain):
            address = read_address(hop)
            if address is None or not self._is_trusted(address):
                return address
        return address

    def _hops(self, chain: str) -> Iterator[str]:
        """From the right."""
        if self._reads_forwarded:
            return map(_for_of, _elements_from_right(chain))
        return reversed(chain.split(","))

    def _learn_unthrottled(self, address: str) -> bool:
        # A name with a prefix is of somebody else: see `_name`.
        parsed = read_address(address)
        unthrottled = not address or (parsed is not None and self._is_unthrottled(parsed))
        return _keep(self._unthrottled, address, unthrottled)

    def _name(self, address: Address) -> str:
        if isinstance(address, IPv4Address) or self._is_unthrottled(address):
            return str(address)
        return str(IPv6Network((int(address), CLIENT_PREFIX6), strict=False))

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _is_unthrottled(self, address: Address) -> bool:
        return any(address in network for network in self._unthrottled_networks)


def read_address(text: str) -> Address | None:
    """The address that a peer or a hop is written as: with a port or brackets or without."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _elements_from_right(chain: str) -> Iterator[str]:
    """The elements of a Forwarded header, the last one first.

    From the right, because what a proxy added there is whole; an open quote further left is not.
    """
    end, quoted = len(chain), False
    for at in range(len(chain) - 1, -1, -1):
        if chain[at] == '"' and not _is_escaped(chain, at):
            quoted = not quoted
        elif chain[at] == "," and not quoted:
            yield chain[at + 1 : end]
            end = at
    yield chain[:end]


def _is_escaped(chain: str, at: int) -> bool:
    before = chain[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _for_of(element: str) -> str:
    """The `for` of a Forwarded element; empty if it has none, or two, or is malformed."""
    found, at = [], 0
    while at < len(element):
        pair = _PAIR.match(element, at)
        if pair is None:
            return ""
        if pair[1].lower() == "for":
            found.append(pair[2] or pair[3] or "")
        at = pair.end()
    return found[0] if len(found) == 1 else ""


def _keep(known: dict[Key, Value], key: Key, value: Value) -> Value:
    if len(known) >= ADDRESSES_MAX:
        known.clear()
    known[key] = value
    return value
