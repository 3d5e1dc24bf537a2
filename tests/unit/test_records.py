"""The compiled splitter against the plain Python it replaced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext.records import split_batch

IDS = st.text("abcXYZ019_-", min_size=20, max_size=20)
USERS = st.text([chr(code) for code in range(33, 127)], min_size=1, max_size=30)
WISHES = st.sampled_from(["a*1", "a*2", "phone-black*1", "phone-black*1,phone-white*2"])


def split(batch: bytes) -> tuple[list[str], list[str], list[int], dict[bytes, int]]:
    columns: tuple[list[str], list[str], list[int], dict[bytes, int]] = ([], [], [], {})
    assert split_batch(batch, *columns) == len(columns[0])
    return columns


def split_plainly(batch: bytes) -> tuple[list[str], list[str], list[int], dict[bytes, int]]:
    ids, users, wishes, numbers = [], [], [], {}
    for line in batch.split(b"\n"):
        reservation_id, user, items = line.split(b" ")
        ids.append(reservation_id.decode())
        users.append(user.decode())
        wishes.append(numbers.setdefault(items, len(numbers)))
    return ids, users, wishes, numbers


@given(st.lists(st.tuples(IDS, USERS, WISHES), min_size=1, max_size=40))
def test_columns_are_those_of_plain_python(lines: list[tuple[str, str, str]]) -> None:
    batch = "\n".join(" ".join(line) for line in lines).encode()
    assert split(batch) == split_plainly(batch)


@pytest.mark.parametrize(
    "batch",
    [
        b"short u a*1",
        b"A" * 20,
        b"A" * 20 + b" ",
        b"A" * 20 + b" user",
        b"A" * 20 + b" user ",
        b"A" * 20 + b"  a*1",
        b"A" * 21 + b" user a*1",
        b"A" * 20 + b" user a*1\nrest",
        b"A" * 20 + b" \xff a*1",
    ],
)
def test_malformed_batch_is_refused(batch: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        split(batch)
