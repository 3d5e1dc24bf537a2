"""The calls on one's addresses. Another's do not exist."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.addresses.store import ADDRESSES_MAX, Address, Addresses, Place
from api.answers import Answer, personal
from api.front import Front
from api.language import LANGUAGES, locale_of
from api.problems import Code, FieldError, Refusal, invalid
from api.routing import Route
from api.spec import LOCATION, Access, Spec
from api.users.granting import no_content

_LINE: Final = r"^[^\x00-\x1f\x7f]*\Z"  # One line of a label.

Line = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=_LINE)]
OptionalLine = Annotated[str, msgspec.Meta(max_length=100, pattern=_LINE)]
Street = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_LINE)]
Phone = Annotated[str, msgspec.Meta(pattern=r"^[0-9+() .-]{3,32}\Z")]
Country = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}\Z")]
PostalCode = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9 -]{0,16}\Z")]


class AddressBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address. `country` is ISO 3166-1 alpha-2; some have no regions, some no postal codes."""

    name: Line
    phone: Phone
    country: Country
    city: Line
    street: Street
    region: OptionalLine = ""
    postal_code: PostalCode = ""
    is_default: bool = False


class ChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays. The default gives way to another one only."""

    name: Line | None = None
    phone: Phone | None = None
    country: Country | None = None
    city: Line | None = None
    street: Street | None = None
    region: OptionalLine | None = None
    postal_code: PostalCode | None = None
    is_default: bool | None = None


class AddressesBody(msgspec.Struct, frozen=True):
    """One's addresses, the default first."""

    addresses: list[Address]


_body_decoder: Final = msgspec.json.Decoder(AddressBody)
_change_decoder: Final = msgspec.json.Decoder(ChangeBody)


async def list_addresses(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    return personal(AddressesBody(await Addresses(front.engine.pool).of_user(user_id)))


async def add_address(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    body = await front.bodies.json(request, _body_decoder)
    _check_country(body.country)
    engine = front.engine
    values = msgspec.structs.asdict(body)
    is_default = values.pop("is_default")
    address = await Addresses(engine.pool).add(
        user_id,
        engine.ids.new("adr"),
        Place(**values),
        is_default=is_default,
        at=datetime.fromtimestamp(engine.clock.now_ms() / 1000, UTC),
    )
    return personal(address, 201, ("Location", f"/v1/addresses/{address.address_id}"))


async def show_address(front: Front, request: web.Request) -> Answer:
    return personal(await _own(front, request))


async def change_address(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    body = await front.bodies.json(request, _change_decoder)
    if body.country is not None:
        _check_country(body.country)
    changes = {
        name: value for name, value in msgspec.structs.asdict(body).items() if value is not None
    }
    wants_default = changes.pop("is_default", None)
    address: Address | None = await _own(front, request)
    assert address is not None
    if wants_default is False and address.is_default:
        raise Refusal.of(invalid([FieldError("is_default", "make another address the default")]))
    addresses = Addresses(front.engine.pool)
    if changes:
        address = await addresses.change(user_id, address.address_id, changes)
    if wants_default and address is not None:
        address = await addresses.make_default(user_id, address.address_id)
    if address is None:  # It was removed meanwhile.
        raise Refusal(Code.NOT_FOUND)
    return personal(address)


async def remove_address(front: Front, request: web.Request) -> Answer:
    user_id = front.caller(request).user_id
    await front.bodies.none(request)
    if not await Addresses(front.engine.pool).remove(user_id, request.match_info["address"]):
        raise Refusal(Code.NOT_FOUND)
    return no_content()


async def _own(front: Front, request: web.Request) -> Address:
    user_id = front.caller(request).user_id
    address = await Addresses(front.engine.pool).get(user_id, request.match_info["address"])
    if address is None:
        raise Refusal(Code.NOT_FOUND)
    return address


@lru_cache
def countries() -> frozenset[str]:
    """The countries of ISO 3166-1, as CLDR lists territories: without groups and inventions."""
    codes = map(str, locale_of(LANGUAGES[0]).territories)
    return frozenset(code for code in codes if len(code) == 2) - _NO_COUNTRIES


# CLDR's own: groups of countries, places within others, the unknown, and what is made up for tests.
_NO_COUNTRIES: Final = frozenset(
    {"AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "XK", "ZZ"}
)


def _check_country(country: str) -> None:
    if country not in countries():
        raise Refusal.of(invalid([FieldError("country", "is no country of ISO 3166-1")]))


_TAG: Final = "Addresses"

ROUTES = (
    Route(
        "GET",
        "/v1/addresses",
        list_addresses,
        access=Access.CALLER,
        spec=Spec(tag=_TAG, summary="One's addresses", answers={200: AddressesBody}),
    ),
    Route(
        "POST",
        "/v1/addresses",
        add_address,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG,
            summary="Add an address",
            description=f"At most {ADDRESSES_MAX}. The first is the default.",
            body=AddressBody,
            answers={201: Address},
            tells={201: (LOCATION,)},
            codes=(Code.TOO_MANY_ADDRESSES,),
        ),
    ),
    Route(
        "GET",
        "/v1/addresses/{address}",
        show_address,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG, summary="Look at an address", answers={200: Address}, codes=(Code.NOT_FOUND,)
        ),
    ),
    Route(
        "PATCH",
        "/v1/addresses/{address}",
        change_address,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG,
            summary="Change an address, or make it the default",
            body=ChangeBody,
            answers={200: Address},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "DELETE",
        "/v1/addresses/{address}",
        remove_address,
        access=Access.CALLER,
        spec=Spec(
            tag=_TAG,
            summary="Remove an address",
            description="If it was the default, the newest of the others is from now on.",
            answers={204: None},
            codes=(Code.NOT_FOUND,),
        ),
    ),
)
