from collections.abc import Callable
from typing import Any

class TokenVerifier:
    def __init__(self, key: bytes, header: bytes) -> None: ...
    def claims(self, token: bytes) -> bytes | None: ...
    def is_genuine(self, token: bytes) -> bool: ...
    def user_until(
        self,
        token: bytes,
        decode: Callable[[bytes], Any],
        now_s: float,
        issued_max_s: float,
    ) -> tuple[str, int] | None: ...
