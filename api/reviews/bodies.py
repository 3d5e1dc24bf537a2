"""What reviews look like over HTTP."""

from typing import Annotated, Literal

import msgspec

from api.reservations.decision import SkuText

IMAGES_MAX = 9  # As many as a phone shows in a square.
TEXT_MAX = 2000
REASON_MAX = 500

# Lines may end; nothing else that does not print.
ReviewText = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=TEXT_MAX,
        pattern=r"^[^\x00-\x09\x0b-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x09\x0b-\x1f\x7f]*\Z",
    ),
]
ReasonText = Annotated[
    str, msgspec.Meta(min_length=1, max_length=REASON_MAX, pattern=r"^[^\x00-\x1f\x7f]+\Z")
]
ImageUrl = Annotated[
    str,
    msgspec.Meta(max_length=500, pattern=r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[!#-;=?-~]*\Z"),
]
Rating = Annotated[int, msgspec.Meta(ge=1, le=5)]
State = Literal["pending", "published", "rejected"]


class ReviewWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/reviews."""

    sku: SkuText
    rating: Rating
    text: ReviewText
    images: Annotated[tuple[ImageUrl, ...], msgspec.Meta(max_length=IMAGES_MAX)] = ()


class ReviewChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PATCH /v1/reviews/{review}: what is left out stays."""

    rating: Rating | None = None
    text: ReviewText | None = None
    images: Annotated[tuple[ImageUrl, ...], msgspec.Meta(max_length=IMAGES_MAX)] | None = None


class ReplyWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PUT /v1/admin/reviews/{review}/reply."""

    text: ReviewText


class Moderation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/admin/reviews/{review}/moderation. The reason is told to the writer."""

    state: Literal["published", "rejected"]
    reason: ReasonText | None = None

    def __post_init__(self) -> None:
        if self.state == "rejected" and self.reason is None:
            raise ValueError("reason is needed where a review is rejected")


class ReplyBody(msgspec.Struct, frozen=True):
    """What the shop answered."""

    text: str
    at: str


class ReviewBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A review. `state` and its reason only for its writer and the shop."""

    review_id: str
    product_id: str
    sku: str
    author: str
    rating: int
    text: str
    images: tuple[str, ...]
    language: str
    helpful: int
    created_at: str
    updated_at: str
    reply: ReplyBody | None = None
    state: State | None = None
    state_reason: str | None = None


class OperatorReviewBody(msgspec.Struct, frozen=True):
    """A review with who wrote it, and the order that proves the purchase."""

    review: ReviewBody
    user_id: str
    order_id: str


class StarsBody(msgspec.Struct, frozen=True):
    """How many gave how many stars, and the mean; no mean of nothing."""

    average: float | None
    count: int
    stars: tuple[int, int, int, int, int]  # of one star, of two …


class ProductReviewsBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of a product's reviews."""

    rating: StarsBody
    reviews: list[ReviewBody]
    next: str | None = None


class ReviewsBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of the caller's own reviews."""

    reviews: list[ReviewBody]
    next: str | None = None


class OperatorReviewsBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of the moderation queue."""

    reviews: list[OperatorReviewBody]
    next: str | None = None
