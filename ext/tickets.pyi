class Ticket:
    sale_id: str
    user_id: str
    number: int
    issued_s: int
    expires_s: int
    eta_s: int | None
    admitted: bool

class TicketKey:
    def __init__(self, key: bytes) -> None: ...
    def sign(
        self,
        sale_id: str,
        user_id: str,
        number: int,
        issued_s: int,
        expires_s: int,
        eta_s: int,
        admitted: bool,
    ) -> bytes: ...
    def read(self, token: bytes | None) -> Ticket | None: ...

def siphash_of(key: bytes, text: bytes) -> int: ...
