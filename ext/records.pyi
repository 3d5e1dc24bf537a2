def split_batch(
    batch: bytes,
    ids: list[str],
    users: list[str],
    wishes: list[int],
    number_of_wish: dict[bytes, int],
) -> int: ...
