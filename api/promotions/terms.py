"""What a promotion promises, as operators write it and as it is kept by revision. Does no I/O."""

from typing import Annotated, Final, Literal

import msgspec

from api.pricing.money import is_currency
from api.pricing.promotion import EVERYTHING_BASIS_POINTS, Kind, Promotion, Stacking
from engine.errors import Invalid
from engine.model import SKU
from engine.sales.document import PRICE_MINOR_MAX

SKUS_MAX: Final = 1000  # One promotion names; for more there are categories.
CATEGORIES_MAX: Final = 100
CURRENCIES_MAX: Final = 40
PRIORITY_MAX: Final = 1_000_000

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Names = Annotated[dict[Literal["en", "zh-CN"], Text], msgspec.Meta(min_length=1)]
SkuText = Annotated[str, msgspec.Meta(pattern=rf"^(?:{SKU.pattern})\Z")]
Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]
Minor = Annotated[int, msgspec.Meta(ge=0, le=PRICE_MINOR_MAX)]
MinorOfSome = Annotated[int, msgspec.Meta(ge=1, le=PRICE_MINOR_MAX)]


class Amounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A promotion's amounts in one currency; it applies in no currency that it has none for."""

    off_minor: Minor = 0  # amount, threshold
    from_minor: Minor = 0  # threshold
    discount_max_minor: MinorOfSome | None = None
    subtotal_min_minor: Minor = 0


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See api/pricing/promotion.py for what they mean."""

    kind: Kind
    name: Names
    currencies: Annotated[
        dict[Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")], Amounts],
        msgspec.Meta(min_length=1, max_length=CURRENCIES_MAX),
    ]
    basis_points: Annotated[int, msgspec.Meta(ge=0, le=EVERYTHING_BASIS_POINTS)] = 0
    repeated: bool = False
    skus: Annotated[tuple[SkuText, ...], msgspec.Meta(max_length=SKUS_MAX)] = ()
    categories: Annotated[tuple[Slug, ...], msgspec.Meta(max_length=CATEGORIES_MAX)] = ()
    stacking: Stacking = Stacking.STACKABLE
    priority: Annotated[int, msgspec.Meta(ge=-PRIORITY_MAX, le=PRIORITY_MAX)] = 0
    group: Slug | None = None
    new_buyers_only: bool = False

    def promotion(
        self, promotion_id: str, revision: int, currency: str, code: str | None = None
    ) -> Promotion:
        """The promotion in one of its currencies."""
        amounts = self.currencies[currency]
        return Promotion(
            promotion_id=promotion_id,
            revision=revision,
            kind=self.kind,
            name={str(language): text for language, text in self.name.items()},
            currency=currency,
            code=code,
            basis_points=self.basis_points,
            off_minor=amounts.off_minor,
            from_minor=amounts.from_minor,
            repeated=self.repeated,
            discount_max_minor=amounts.discount_max_minor,
            subtotal_min_minor=amounts.subtotal_min_minor,
            skus=self.skus,
            categories=self.categories,
            stacking=self.stacking,
            priority=self.priority,
            group=self.group,
        )


def check_terms(terms: Terms) -> None:
    """Lets terms through that promise something. Raises Invalid."""
    if (terms.kind is Kind.PERCENT) != (terms.basis_points > 0):
        raise Invalid("basis_points", "is for a percent promotion, which needs it")
    if terms.repeated and terms.kind is not Kind.THRESHOLD:
        raise Invalid("repeated", "is for a threshold promotion")
    for currency, amounts in terms.currencies.items():
        if not is_currency(currency):
            raise Invalid(f"currencies.{currency}", "is no currency of ISO 4217")
        _check_amounts(f"currencies.{currency}", terms.kind, amounts)


def _check_amounts(field: str, kind: Kind, amounts: Amounts) -> None:
    if (kind in {Kind.AMOUNT, Kind.THRESHOLD}) != (amounts.off_minor > 0):
        raise Invalid(f"{field}.off_minor", "is for amount and threshold promotions, which need it")
    if (kind is Kind.THRESHOLD) != (amounts.from_minor > 0):
        raise Invalid(f"{field}.from_minor", "is for a threshold promotion, which needs it")
    if kind is Kind.THRESHOLD and amounts.off_minor > amounts.from_minor:
        raise Invalid(f"{field}.off_minor", "is more than has to be bought for it")


def as_stored(value: object) -> Terms:
    """Terms out of a jsonb column."""
    return msgspec.convert(value, Terms)
