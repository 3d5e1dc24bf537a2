"""Requests that two servers may read in two ways, and how this one reads them.

Each is sent with a reserve call behind it. `status` is the first answer's. What is refused must end
the connection, and nothing behind it may be executed; `why` says why RFC 9112 allows an answer.
"""

from typing import Final, NamedTuple

BODY: Final = b'{"items":[{"sku":"phone-black","quantity":1}]}'
FIELDS: Final = (
    b"Host: x\r\nAuthorization: Bearer %(token)b\r\nIdempotency-Key: first\r\n"
    b"Content-Type: application/json\r\n"
)
LINE: Final = b"POST /v1/sales/demo/reservations HTTP/1.1\r\n"
LENGTH: Final = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
CHUNKS: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


class Odd(NamedTuple):
    """A request with something odd. `reserves`: how many reservations it and the call behind make."""

    name: str
    data: bytes
    status: int = 400
    why: str = ""
    reserves: int = 0


def head(*odd: bytes, line: bytes = LINE) -> bytes:
    return line + FIELDS + b"".join(odd) + b"\r\n"


CORPUS: Final = (
    Odd("length and chunks", head(LENGTH, CHUNKED) + CHUNKS),
    Odd("chunks and length", head(CHUNKED, LENGTH) + CHUNKS),
    Odd("chunks twice", head(CHUNKED, CHUNKED) + CHUNKS),
    Odd("chunks, then identity", head(CHUNKED, b"Transfer-Encoding: identity\r\n") + CHUNKS),
    Odd("identity", head(b"Transfer-Encoding: identity\r\n") + BODY),
    Odd("an unknown coding", head(b"Transfer-Encoding: xchunked\r\n") + CHUNKS),
    Odd("a coding after chunks", head(b"Transfer-Encoding: chunked, gzip\r\n") + CHUNKS),
    Odd("a space before the coding's colon", head(b"Transfer-Encoding : chunked\r\n") + CHUNKS),
    Odd("a coding on a folded line", head(b"Transfer-Encoding:\r\n chunked\r\n") + CHUNKS),
    Odd("a vertical tab before the coding", head(b"Transfer-Encoding: \x0bchunked\r\n") + CHUNKS),
    Odd("a coding in quotes", head(b'Transfer-Encoding: "chunked"\r\n') + CHUNKS),
    Odd("the same length twice", head(LENGTH, LENGTH) + BODY),
    Odd("two lengths", head(LENGTH, b"Content-Length: 3\r\n") + BODY),
    Odd("two lengths in one line", head(b"Content-Length: 46, 46\r\n") + BODY),
    Odd("a negative length", head(b"Content-Length: -1\r\n") + BODY),
    Odd("a length with a plus", head(b"Content-Length: +46\r\n") + BODY),
    Odd("a hexadecimal length", head(b"Content-Length: 0x2e\r\n") + BODY),
    Odd("a length with an underscore", head(b"Content-Length: 4_6\r\n") + BODY),
    Odd("an empty length", head(b"Content-Length: \r\n") + BODY),
    Odd("a length beyond 64 bits", head(b"Content-Length: 18446744073709551662\r\n") + BODY),
    Odd("a length with a space in it", head(b"Content-Length: 4 6\r\n") + BODY),
    Odd("a length with a NUL", head(b"Content-Length: 46\0\r\n") + BODY),
    Odd("a space before the length's colon", head(b"Content-Length : 46\r\n") + BODY),
    Odd("a tab before the length's colon", head(b"Content-Length\t: 46\r\n") + BODY),
    Odd("bare line feeds", head(LENGTH).replace(b"\r\n", b"\n") + BODY),
    Odd("one bare line feed", head(LENGTH).replace(b"\r\n", b"\n", 1) + BODY),
    Odd("a bare line feed in a header", head(b"X-A: b\nX-C: d\r\n", LENGTH) + BODY),
    Odd("a bare carriage return in a header", head(b"X-A: b\rX-C: d\r\n", LENGTH) + BODY),
    Odd("a bare carriage return at the end", head(LENGTH)[:-2] + b"\rX" + BODY),
    Odd("a folded line", head(b"X-A: b\r\n c\r\n", LENGTH) + BODY),
    Odd("a first header that begins with a space", LINE + b" " + head(LENGTH, line=b"") + BODY),
    Odd("a NUL in a header", head(b"X-A: a\0b\r\n", LENGTH) + BODY),
    Odd("a NUL in a header's name", head(b"X\0A: b\r\n", LENGTH) + BODY),
    Odd("a header without a colon", head(b"X-A\r\n", LENGTH) + BODY),
    Odd("a header without a name", head(b": b\r\n", LENGTH) + BODY),
    Odd("a space in a header's name", head(b"X A: b\r\n", LENGTH) + BODY),
    Odd("no Host", head(LENGTH).replace(b"Host: x\r\n", b"") + BODY),
    Odd("two Hosts", head(b"Host: y\r\n", LENGTH) + BODY),
    Odd("a lower-case method", head(LENGTH, line=LINE.replace(b"POST", b"post")) + BODY),
    Odd("two spaces", head(LENGTH, line=LINE.replace(b"POST ", b"POST  ")) + BODY, 201,
        "RFC 9112 §3 lets a server read runs of white space between the words as one", 2),
    Odd("a tab for a space", head(LENGTH, line=LINE.replace(b"POST ", b"POST\t")) + BODY),
    Odd("no version", head(LENGTH, line=LINE.replace(b" HTTP/1.1", b"")) + BODY),
    Odd("HTTP/1.2", head(LENGTH, line=LINE.replace(b"1.1", b"1.2")) + BODY),
    Odd("HTTP/2.0", head(LENGTH, line=LINE.replace(b"1.1", b"2.0")) + BODY),
    Odd("HTTP/11.1", head(LENGTH, line=LINE.replace(b"1.1", b"11.1")) + BODY),
    Odd("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Odd("a NUL in the path", head(LENGTH, line=LINE.replace(b"demo", b"de\0mo")) + BODY),
    Odd("a huge chunk", head(CHUNKED) + b"ffffffffffffffff0\r\nx\r\n"),
    Odd("a negative chunk", head(CHUNKED) + b"-1\r\nx\r\n0\r\n\r\n"),
    Odd("a chunk with 0x", head(CHUNKED) + b"0x2e\r\n" + BODY + b"\r\n0\r\n\r\n"),
    Odd("a chunk longer than it says", head(CHUNKED) + b"3\r\n" + BODY + b"\r\n0\r\n\r\n"),
    Odd("a chunk that ends with a line feed", head(CHUNKED) + CHUNKS.replace(b"\r\n", b"\n")),
    Odd("leading empty lines", b"\r\n\r\n" + head(LENGTH) + BODY, 201,
        "RFC 9112 §2.2: a server should ignore an empty line before a request", 2),
    Odd("an extension of a chunk", head(CHUNKED) + CHUNKS.replace(b"\r\n", b";a=b\r\n", 1), 201,
        "RFC 9112 §7.1.1: a recipient must ignore extensions it does not know", 2),
    Odd("a trailer", head(CHUNKED) + CHUNKS[:-2] + b"X-A: b\r\n\r\n", 201,
        "RFC 9112 §7.1.2 allows trailers; ours are not merged into the headers", 2),
    Odd("a trailer that frames", head(CHUNKED) + CHUNKS[:-2] + b"Content-Length: 99\r\n\r\n"),
    Odd("a tab around a value", head(b"X-A:\tb\t\r\n", LENGTH) + BODY, 201,
        "RFC 9110 §5.5: white space around a value is no part of it", 2),
    Odd("no space after a colon", head(b"X-A:b\r\n", LENGTH.replace(b": ", b":")) + BODY, 201,
        "RFC 9112 §5: the white space is optional", 2),
    Odd("zeros before the length", head(b"Content-Length: 0046\r\n") + BODY, 201,
        "RFC 9110 §8.6: a length is one or more digits", 2),
)  # fmt: skip
