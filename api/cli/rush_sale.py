"""Makes a sale for one load test, as an operator would: over the admin API, with an operator's token."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from api.http_client import AioHttpClient
from api.tokens import Role, Tokens
from engine.clock import SystemClock
from engine.config import Settings
from engine.errors import DoorbusterError, ProviderUnavailable
from engine.model import Money
from engine.sales import SaleDocument, SaleItem

SKUS: Final = 4  # A flash sale is about few things.
OPEN_DAYS: Final = 1
RESERVATION_SECONDS: Final = 3600  # Nobody's reservation ends while it is being counted.
PER_USER_MAX: Final = 2
OPERATOR: Final = "load"


class _Problem(msgspec.Struct):
    detail: str = ""


def public_url(settings: Settings) -> str:
    """Where the crowd finds the engine."""
    return settings.public_url or f"http://{settings.host}:{settings.port}"


async def put_up(settings: Settings, document: SaleDocument) -> None:
    """Makes the sale. Raises DoorbusterError."""
    assert settings.secret is not None
    token = Tokens(settings.secret, SystemClock()).issue(OPERATOR, Role.OPERATOR)
    url = f"{public_url(settings)}/v1/admin/sales"
    try:
        async with AioHttpClient(connections_max=1) as client:
            reply = await client.post(
                url, msgspec.json.encode(document), {"Authorization": f"Bearer {token}"}
            )
    except ProviderUnavailable as error:
        raise DoorbusterError(f"Nobody answers at {url}: is the engine running?") from error
    if reply.status != 201:
        raise DoorbusterError(f"The sale was refused ({reply.status}): {_detail(reply.body)}")


def draw_up(
    kind: str, units: int, *, opens_in: timedelta = timedelta(0), auto_capture: bool = False
) -> SaleDocument:
    """A sale `<kind>-<time>`, its units spread over a few SKUs, the first of which has the rest."""
    now = datetime.now(UTC)
    share, rest = divmod(units, SKUS)
    counts = [share + (rest if number == 0 else 0) for number in range(SKUS)]
    price = Money(129900, "CNY")
    return SaleDocument(
        sale_id=f"{kind}-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}",
        name={"en": kind.capitalize()},
        opens_at=now + opens_in,
        closes_at=now + timedelta(days=OPEN_DAYS),
        per_user_max=PER_USER_MAX,
        reservation_seconds=RESERVATION_SECONDS,
        auto_capture=auto_capture,
        items=tuple(
            SaleItem(f"phone-{number + 1}", {"en": f"Phone {number + 1}"}, count, price)
            for number, count in enumerate(counts)
            if count
        ),
    )


def _detail(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Problem).detail
    except msgspec.DecodeError:
        return "no reason was given."
