"""Remembers who has a record in a sale."""

from collections.abc import Iterable


class HolderTable:
    """A set of user names that can be asked and added to, and not listed."""

    def __init__(self) -> None:
        self._users: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, user: str) -> bool:
        return user.encode() in self._users

    def add_users(self, users: Iterable[bytes]) -> None:
        """Adds names in bytes, as Redis gives them."""
        self._users.update(users)

    def add_batch(self, batch: bytes) -> None:
        """Adds the users of a batch's lines `id user items`. Raises ValueError on a malformed line."""
        for line in batch.removesuffix(b"\n").split(b"\n") if batch else ():
            user, space, _ = line[21:].partition(b" ")
            if line[20:21] != b" ":
                raise ValueError("a line does not start with an id")
            if not (user and space):
                raise ValueError("a line lacks its user")
            self._users.add(user)
