"""Makes streams of requests, and spoils them: the bytes that the gate is fed."""

import random
from itertools import pairwise
from typing import Final

HOST: Final = "Host: shop.example"
AUTHORIZATION: Final = "Authorization: Bearer abc.def.ghi"
KEY: Final = "Idempotency-Key: k-1"
JSON_TYPE: Final = "Content-Type: application/json"
BODY: Final = b'{"items":[{"sku":"a","quantity":1}]}'


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """One request; a body gets its length."""
    lines = [line, *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def reserve(*more: str, body: bytes = BODY, sale: str = "demo") -> bytes:
    line = f"POST /v1/sales/{sale}/reservations HTTP/1.1"
    return request(line, HOST, AUTHORIZATION, KEY, JSON_TYPE, *more, body=body)


def show_sale(*more: str, sale: str = "demo") -> bytes:
    return request(f"GET /v1/sales/{sale} HTTP/1.1", HOST, *more)


def show_reservation(*more: str, name: str = "demo.abcdefghij_-ABCDEFGH") -> bytes:
    return request(f"GET /v1/reservations/{name} HTTP/1.1", HOST, AUTHORIZATION, *more)


def show_queue(*more: str, sale: str = "demo") -> bytes:
    return request(f"GET /v1/sales/{sale}/queue HTTP/1.1", HOST, AUTHORIZATION, *more)


def enter_queue(*more: str, sale: str = "demo", body: bytes = b"") -> bytes:
    return request(f"POST /v1/sales/{sale}/queue HTTP/1.1", HOST, AUTHORIZATION, *more, body=body)


def show_challenge(*more: str, sale: str = "demo") -> bytes:
    line = f"GET /v1/sales/{sale}/queue/challenge HTTP/1.1"
    return request(line, HOST, AUTHORIZATION, *more)


COLD: Final = request("GET /healthz HTTP/1.1", HOST)
CHUNKED: Final = (
    b"POST /v1/sales/demo/reservations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n"
)

VALID: Final = (
    reserve(),
    reserve("Connection: keep-alive", "User-Agent: wrk", "Accept: */*"),
    reserve("X-Request-Id: abcdefgh-1", "X-Other: \xe4"),
    reserve(body=b""),
    reserve("Content-Length: 0", body=b""),
    reserve(body=b"x" * 390),
    reserve(body=b"x" * 420),
    reserve(sale="a" * 48),
    show_sale(),
    show_sale("Accept-Encoding: gzip, br"),
    show_reservation(),
    show_queue("Queue-Ticket: abc.def.ghi"),
    show_queue("X-Forwarded-For: 203.0.113.7, 10.0.0.1", "Forwarded: for=203.0.113.7"),
    show_queue(sale="queue"),
    show_sale(sale="queue"),
    enter_queue(),
    enter_queue("Content-Length: 0", "User-Agent: Mozilla/5.0 (X)"),
    enter_queue(JSON_TYPE, "Queue-Ticket: abc.def.ghi", body=b'{"altcha":"eyJ9"}'),
    enter_queue("User-Agent: \xe4", sale="queue", body=b"x" * 420),
    show_challenge(),
    show_challenge("Queue-Ticket: x", sale="queue"),
    request("GET /v1/sales/queue/challenge HTTP/1.1", HOST),
    request("POST /v1/sales/queue HTTP/1.1", HOST, body=b"{}"),
    request("GET /v1/sales/demo/queue/proof HTTP/1.1", HOST),
    COLD,
    request("GET /v1/sales/demo?x=1 HTTP/1.1", HOST),
    request("GET /v1/sales/demo HTTP/1.0", HOST),
    request("GET /v1/sales HTTP/1.1", HOST),
    request("GET /v1/sales//queue HTTP/1.1", HOST),
    request("DELETE /v1/reservations/demo.x HTTP/1.1", HOST),
    show_sale("Connection: close"),
    reserve("Expect: 100-continue"),
    CHUNKED,
)

WORDS: Final = (
    b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b"\x0b", b"\xff", b"\r\n\r\n", b";", b"0",
    b"Content-Length: 3\r\n", b"Content-Length: 37\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Host: y\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n", b" \r\n",
    b"Authorization: Bearer x\r\n", b"Idempotency-Key: z\r\n", b"X-Request-Id: \r\n",
    b"Queue-Ticket: x\r\n", b"X-Forwarded-For: ::1\r\n", b"Forwarded: for=x\r\n", b"/queue",
    b"/queue/challenge", b"/challenge", b"User-Agent: x\r\n",
    b"Content-Encoding: gzip\r\n", b"Sec-WebSocket-Key1: x\r\n", b"HTTP/1.0", b"HTTP/1.2",
    b"GET /v1/sales/demo HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)  # fmt: skip


def stream(dice: random.Random) -> bytes:
    """Some requests after each other, spoilt in none to three places."""
    data = b"".join(dice.choice(VALID) for _ in range(dice.randint(1, 4)))
    for _ in range(dice.randint(0, 3)):
        data = _spoil(data, dice)
    return data


def pieces(data: bytes, dice: random.Random) -> list[bytes]:
    """The stream as a network may deliver it."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 1, 1, 2, 5))))
    ends = [0, *cuts, len(data)]
    return [piece for a, b in pairwise(ends) if (piece := data[a:b])]


def _spoil(data: bytes, dice: random.Random) -> bytes:
    if not data:
        return data
    at = dice.randrange(len(data))
    to = min(len(data), at + dice.choice((1, 1, 2, 5, 40)))
    ways = (
        lambda: data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :],
        lambda: data[:at] + data[to:],
        lambda: data[:to] + data[at:],
        lambda: data[:at] + dice.choice(WORDS) + data[at:],
        lambda: data[:at] + _an_end(dice.choice(VALID), dice),
        lambda: _at_a_line(data, dice),
        lambda: data[:at],
    )
    return dice.choice(ways)()


def _an_end(data: bytes, dice: random.Random) -> bytes:
    return data[dice.randrange(len(data)) :]


def _at_a_line(data: bytes, dice: random.Random) -> bytes:
    """Another header line, or another word, where a line begins."""
    lines = data.split(b"\r\n")
    lines.insert(dice.randrange(len(lines) + 1), dice.choice(WORDS).removesuffix(b"\r\n"))
    return b"\r\n".join(lines)
