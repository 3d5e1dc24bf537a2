"""Flattens stream entries into the columns of one statement. Reads no stream and stores nothing."""

from collections.abc import Sequence

from engine.store.orders import OrderBatch, newest_of
from engine.stream import Entry, Malformed
from ext import split_batch


def make_batch(sale_id: str, entries: Sequence[Entry | Malformed]) -> OrderBatch:
    """Flattens entries into columns. Raises ValueError on a malformed one."""
    batch = OrderBatch(sale_id, newest_entry=newest_of([entry.entry_id for entry in entries]))
    for entry in entries:
        if isinstance(entry, Malformed):
            raise ValueError(f"entry {entry.entry_id} was not written by reserve")
        wishes: list[int] = []
        number_of_wish: dict[bytes, int] = {}
        split_batch(entry.batch, batch.ids, batch.users, wishes, number_of_wish)
        batch.add_wishes(wishes, number_of_wish, entry.at_ms, entry.until_s)
    return batch
