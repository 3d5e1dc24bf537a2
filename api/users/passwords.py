"""Hashes and verifies passwords with Argon2id (RFC 9106), in few threads and with a short queue."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from engine.errors import Overloaded

PASSWORD_LENGTH_MIN: Final = 8
PASSWORD_LENGTH_MAX: Final = 128  # Hashing costs grow with it; nobody types more.
WAITING_PER_THREAD_MAX: Final = 16  # At ~50 ms each: beyond a second, refusing is kinder.

Result = TypeVar("Result")


@cache
def _nobodys_hash() -> str:
    """Verified against when there is no such user, so that both answers take the same time."""
    return PasswordHasher().hash("nobody's password")


class PasswordVault:
    """The slow, memory-hungry part of logging in, bounded. Raises Overloaded when too many wait."""

    def __init__(self, threads: int, waiting_per_thread_max: int = WAITING_PER_THREAD_MAX) -> None:
        self._hasher = PasswordHasher()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._waiting = 0
        self._waiting_max = threads * waiting_per_thread_max
        self._nobody = _nobodys_hash()

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is that of the hash; False, as slowly, if there is no hash."""
        matches = await self._run(lambda: self._matches(password_hash or self._nobody, password))
        return matches and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether it was made with other parameters than those of today (RFC 9106 §4)."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= self._waiting_max:
            raise Overloaded("Too many passwords are being checked.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
