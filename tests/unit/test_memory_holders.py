"""The table of holders, compiled and plain: it may say maybe, never no to somebody it was told."""

import random

import pytest

from ext.holders import HolderTable
from ext.plain.holders import HolderTable as PlainTable

FORMS = pytest.mark.parametrize("form", [HolderTable, PlainTable], ids=["compiled", "plain"])


def line(user: str) -> bytes:
    return f"{'i' * 20} {user} black*1".encode()


@FORMS
def test_everybody_added_is_found_and_hardly_anybody_else(form: type[HolderTable]) -> None:
    table = form()
    names = [f"buyer-{number}" for number in range(50_000)]
    random.Random(7).shuffle(names)

    table.add_users(name.encode() for name in names[:25_000])
    table.add_batch(b"\n".join(map(line, names[25_000:])))
    table.add_batch(b"\n".join(map(line, names[:1000])))

    assert len(table) == 50_000
    assert all(name in table for name in names)
    assert not any(f"other-{number}" in table for number in range(50_000))


@FORMS
def test_empty_table_knows_nobody(form: type[HolderTable]) -> None:
    table = form()
    table.add_batch(b"")
    assert len(table) == 0
    assert "ann" not in table


@FORMS
def test_shortest_and_longest_names_are_told_apart(form: type[HolderTable]) -> None:
    table = form()
    table.add_users([b"!", b"~" * 128])
    table.add_batch(line("x" * 128) + b"\n")
    assert all(name in table for name in ("!", "~" * 128, "x" * 128))
    assert "~" * 127 not in table
    assert len(table) == 3


@FORMS
@pytest.mark.parametrize(
    "batch",
    [b"short", b"\n", b"i" * 20, b"i" * 20 + b" ", b"i" * 20 + b" ann", b"i" * 20 + b"  a*1"],
)
def test_line_that_no_script_writes_is_refused(form: type[HolderTable], batch: bytes) -> None:
    with pytest.raises(ValueError, match="line"):
        form().add_batch(batch)
