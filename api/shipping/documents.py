"""A shipping method as an operator writes it, and the rules that it keeps."""

from typing import Annotated

import msgspec

from api.shipping.bodies import CarrierName, Currency, Line, MethodId
from api.shipping.fees import Tariff

ZONES_MAX = 300  # Of one method: every country, and what is far away in some.
DAYS_MAX = 365
ANYWHERE = "*"

Names = Annotated[dict[Annotated[str, msgspec.Meta(pattern=r"^(en|zh-CN)\Z")], Line],
                  msgspec.Meta(min_length=1)]  # fmt: skip
Days = Annotated[int, msgspec.Meta(ge=0, le=DAYS_MAX)]


class Fee(Tariff, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a zone costs in one currency."""

    currency: Currency


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a method goes. `country` `*` is all that no other zone names; `regions` are every spelling
    of those meant, none of them the whole country."""

    country: Annotated[str, msgspec.Meta(pattern=r"^(?:[A-Z]{2}|\*)\Z")]
    days_min: Days
    days_max: Days
    fees: Annotated[list[Fee], msgspec.Meta(min_length=0, max_length=50)]
    regions: Annotated[list[Line], msgspec.Meta(max_length=100)] = []

    def __post_init__(self) -> None:
        if self.days_min > self.days_max:
            raise ValueError("days_min is above days_max")
        if self.country == ANYWHERE and self.regions:
            raise ValueError("regions are those of one country")
        currencies = [fee.currency for fee in self.fees]
        if len(currencies) != len(set(currencies)):
            raise ValueError("two fees in one currency")


class MethodDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A method with all of its zones and fees; what is not in it is not offered."""

    name: Names
    carrier: CarrierName
    zones: Annotated[list[Zone], msgspec.Meta(min_length=1, max_length=ZONES_MAX)]
    position: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    active: bool = True

    def __post_init__(self) -> None:
        places = [place for zone in self.zones for place in _places(zone)]
        if len(places) != len(set(places)):
            raise ValueError("two zones name the same place")


class Method(msgspec.Struct, frozen=True):
    """A method, as operators see it."""

    method_id: MethodId
    name: dict[str, str]
    carrier: str
    zones: list[Zone]
    position: int
    active: bool


def _places(zone: Zone) -> list[tuple[str, str]]:
    return [(zone.country, region.lower()) for region in zone.regions or [""]]
