"""What operators do to products, one at a time. Files of them are taken in by api/catalogue/bulk.py."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.bodies import decode, require_json
from api.catalogue.bodies import (
    ListQuery,
    OperatorProduct,
    OperatorProducts,
    PatchProduct,
    PutProduct,
    SkuChange,
    operator_product,
)
from api.catalogue.conditional import (
    ETAG,
    IF_MATCH,
    IF_NONE_MATCH_CREATE,
    TOLD_TAG,
    require_revision,
    revision_tag,
)
from api.catalogue.document import Product, Sku, Slug
from api.catalogue.store import Catalogue, StoredProduct
from api.front import Front
from api.paging import cursor, cursor_text
from api.problems import Code, Refusal
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Spec
from engine.errors import Invalid

DOCUMENT_BYTES_MAX: Final = 1_048_576  # 200 SKUs with options and prices; as a line of a file.

Change = Callable[[StoredProduct | None], Product]

_TAG: Final = "Catalogue"
_put_decoder: Final = msgspec.json.Decoder(PutProduct)
_patch_decoder: Final = msgspec.json.Decoder(PatchProduct)


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last product of a page."""

    product_id: Slug


_end_decoder: Final = msgspec.json.Decoder(PageEnd)


async def list_products(front: Front, request: web.Request) -> Answer:
    query = read_query(request, ListQuery)
    end = cursor(request, _end_decoder)
    found = await Catalogue(front.engine.pool).list(
        status=query.status,
        category_id=query.category,
        after=end.product_id if end else "",
        rows_max=query.limit,
    )
    is_full = len(found) == query.limit
    last = cursor_text(PageEnd(found[-1].product.product_id)) if is_full else None
    return personal(OperatorProducts([operator_product(each) for each in found], last))


async def show_product(front: Front, request: web.Request) -> Answer:
    stored = await Catalogue(front.engine.pool).get(request.match_info["product"])
    if stored is None:
        raise Refusal(Code.NOT_FOUND)
    return _shown(stored)


async def put_product(front: Front, request: web.Request) -> Answer:
    product_id = _slug(request.match_info["product"])
    body = await front.bodies.raw(request, DOCUMENT_BYTES_MAX)
    require_json(request.headers)
    wanted = decode(body, _put_decoder)

    def change(before: StoredProduct | None) -> Product:
        require_revision(request, before.revision if before else None, wanted.revision)
        fields = msgspec.structs.asdict(wanted)
        del fields["revision"]
        return Product(product_id=product_id, **fields)

    stored, is_new = await _change(front, request, product_id, change)
    return _shown(stored, 201 if is_new else 200)


async def patch_product(front: Front, request: web.Request) -> Answer:
    product_id = _slug(request.match_info["product"])
    body = await front.bodies.raw(request, DOCUMENT_BYTES_MAX)
    require_json(request.headers)
    wanted = decode(body, _patch_decoder)

    def change(before: StoredProduct | None) -> Product:
        if before is None:
            raise Refusal(Code.NOT_FOUND)
        if wanted.revision is not None or "If-Match" in request.headers:
            require_revision(request, before.revision, wanted.revision)
        return patched(before.product, wanted)

    return _shown((await _change(front, request, product_id, change))[0])


async def archive_product(front: Front, request: web.Request) -> Answer:
    await front.bodies.none(request)

    def change(before: StoredProduct | None) -> Product:
        if before is None:
            raise Refusal(Code.NOT_FOUND)
        if "If-Match" in request.headers:
            require_revision(request, before.revision, None)
        return msgspec.structs.replace(before.product, status="archived")

    product_id = _slug(request.match_info["product"])
    return _shown((await _change(front, request, product_id, change))[0])


async def _change(
    front: Front, request: web.Request, product_id: str, change: Change
) -> tuple[StoredProduct, bool]:
    actor = front.caller(request).user_id
    return await Catalogue(front.engine.pool).change(product_id, change, actor)


def patched(product: Product, wanted: PatchProduct) -> Product:
    """The product with what is wanted. Raises Invalid for an SKU that it does not have."""
    fields = _said(wanted)
    fields.pop("revision", None)
    changes: dict[str, SkuChange] = {each.sku: each for each in fields.pop("skus", ())}
    skus = []
    for sku in product.skus:
        change = changes.pop(sku.sku, None)
        skus.append(sku if change is None else _patched_sku(sku, change))
    if changes:
        raise Invalid("skus", f"the product has no {next(iter(changes))}")
    return msgspec.structs.replace(product, **fields, skus=tuple(skus))


def _patched_sku(sku: Sku, change: SkuChange) -> Sku:
    return msgspec.structs.replace(sku, **_said(change))


def _said(body: msgspec.Struct) -> dict[str, Any]:
    fields: Mapping[str, Any] = msgspec.structs.asdict(body)
    return {name: value for name, value in fields.items() if value is not msgspec.UNSET}


def _shown(stored: StoredProduct, status: int = 200) -> Answer:
    return personal(operator_product(stored), status, (ETAG, revision_tag(stored.revision)))


def _slug(text: str) -> str:
    """A product's id in a path. Raises Refusal: nothing can have another name."""
    try:
        return msgspec.convert(text, Slug)
    except msgspec.ValidationError:
        raise Refusal(Code.NOT_FOUND, "Ids are small letters, digits and dashes.") from None


_CHANGES: Final = (Code.NOT_FOUND, Code.SKU_TAKEN, Code.CONFLICT, Code.BODY_TOO_LARGE)
_PATH: Final = "/v1/admin/products/{product}"

ROUTES: Final = (
    Route(
        "GET",
        "/v1/admin/products",
        list_products,
        access=Access.SUPPORT,
        spec=Spec(
            tag=_TAG,
            summary="Products of any status, by id",
            answers={200: OperatorProducts},
            query=ListQuery,
        ),
    ),
    Route(
        "GET",
        _PATH,
        show_product,
        access=Access.SUPPORT,
        spec=Spec(
            tag=_TAG,
            summary="A product in all languages",
            answers={200: OperatorProduct},
            tells={200: (TOLD_TAG,)},
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "PUT",
        _PATH,
        put_product,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Create or replace a product",
            description="The body is the whole product. SKUs that it does not name are sold no more"
            " (`active: false`), as orders still name them. To replace a product, say which version:"
            " its `revision` in the body or its `ETag` in `If-Match`.",
            answers={200: OperatorProduct, 201: OperatorProduct},
            tells={200: (TOLD_TAG,), 201: (TOLD_TAG,)},
            body=PutProduct,
            headers=(IF_MATCH, IF_NONE_MATCH_CREATE),
            codes=(*_CHANGES, Code.CHANGED_MEANWHILE, Code.PRECONDITION_REQUIRED),
        ),
    ),
    Route(
        "PATCH",
        _PATH,
        patch_product,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Change some of a product",
            description="Fields that are not named stay. `skus` changes SKUs that the product has.",
            answers={200: OperatorProduct},
            tells={200: (TOLD_TAG,)},
            body=PatchProduct,
            headers=(IF_MATCH,),
            codes=(*_CHANGES, Code.CHANGED_MEANWHILE),
        ),
    ),
    Route(
        "DELETE",
        _PATH,
        archive_product,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Archive a product",
            description="It is shown and sold no more. Orders, reviews and its stock stay.",
            answers={200: OperatorProduct},
            tells={200: (TOLD_TAG,)},
            headers=(IF_MATCH,),
            codes=(Code.NOT_FOUND, Code.CONFLICT, Code.CHANGED_MEANWHILE),
        ),
    ),
)
