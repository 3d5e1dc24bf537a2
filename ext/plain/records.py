"""Splits the batches of the orders stream into columns, as the drainer's statement takes them."""


def split_batch(
    batch: bytes,
    ids: list[str],
    users: list[str],
    wishes: list[int],
    number_of_wish: dict[bytes, int],
) -> int:
    """Appends each line `id user items` of `batch` to the three columns; returns how many there were.

    `wishes` gets a number per distinct items text; `number_of_wish` maps items to it and learns new
    ones. Raises ValueError on a malformed line; the columns may then hold the lines before.
    """
    lines = batch.removesuffix(b"\n").split(b"\n") if batch else []
    for line in lines:
        reservation_id, user, items = _parts(line)
        ids.append(reservation_id.decode())
        users.append(user.decode())
        wishes.append(number_of_wish.setdefault(items, len(number_of_wish)))
    return len(lines)


def _parts(line: bytes) -> tuple[bytes, bytes, bytes]:
    if len(line) <= 23 or line[20:21] != b" ":
        raise ValueError("a line does not start with an id")
    user, space, items = line[21:].partition(b" ")
    if not (user and space and items):
        raise ValueError("a line lacks its user or its items")
    return line[:20], user, items
