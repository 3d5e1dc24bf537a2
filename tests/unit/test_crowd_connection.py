"""One connection of the crowd, fed answers in every form and every cut that HTTP/1.1 allows."""

import pytest

from loadtest.connection import Connection

PLAIN = b"HTTP/1.1 201 Created\r\nX-Request-Id: 1\r\nContent-Length: 11\r\n\r\n" + b'{"a":"b\\n"}'
CHUNKED = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + PLAIN
SHED = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
CLOSING = b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


class Transport:
    """Takes what is sent; says whether it was dropped."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def abort(self) -> None:
        self.aborted = True


class Owner:
    """Notes the answers."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, float | None, bool]] = []

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        connection.work = None
        self.answers.append((status, body, connection.retry_after_s, connection.is_open))

    def closed(self, connection: Connection) -> None:
        raise AssertionError("nobody closed it")


def connected() -> tuple[Connection, Owner, Transport]:
    owner, transport = Owner(), Transport()
    connection = Connection(owner)
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, owner, transport


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (PLAIN, (201, b'{"a":"b\\n"}', None, True)),
        (CHUNKED, (201, b"hello there", None, True)),
        (INTERIM, (201, b'{"a":"b\\n"}', None, True)),
        (SHED, (503, b"", 7.0, True)),
        (CLOSING, (409, b"{}", None, False)),
    ],
)
def test_answer_cut_anywhere_is_told_once_and_only_when_whole(
    answer: bytes, told: tuple[int, bytes, float | None, bool]
) -> None:
    for cut in range(1, len(answer)):
        connection, owner, transport = connected()
        connection.send("click", b"request")
        connection.data_received(answer[:cut])
        assert owner.answers == []
        connection.data_received(answer[cut:])
        assert owner.answers == [told]
        assert transport.aborted is not told[3]


def test_next_answer_on_the_same_connection_is_its_own() -> None:
    connection, owner, _ = connected()
    for answer in (SHED, CHUNKED, INTERIM, PLAIN):
        connection.send("click", b"request")
        for byte in answer:
            connection.data_received(bytes([byte]))

    assert [(status, wait) for status, _, wait, _ in owner.answers] == [
        (503, 7.0), (201, None), (201, None), (201, None),
    ]  # fmt: skip


@pytest.mark.parametrize("nonsense", [PLAIN + PLAIN, b"SSH-2.0-x\r\n", PLAIN + b"and more\r\n\r\n"])
def test_more_than_an_answer_or_none_at_all_drops_the_connection(nonsense: bytes) -> None:
    connection, owner, transport = connected()
    connection.send("click", b"request")
    connection.data_received(nonsense)

    assert transport.aborted
    assert owner.answers == []


def test_answer_to_nothing_drops_the_connection() -> None:
    connection, owner, transport = connected()
    connection.data_received(PLAIN)

    assert transport.aborted
    assert owner.answers == []
