"""The calls on categories: the tree for everybody, changes for operators."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.catalogue.bodies import CategoryName
from api.catalogue.conditional import ACCEPT_LANGUAGE, IF_NONE_MATCH, TOLD, localized
from api.catalogue.document import Names, Slug
from api.catalogue.tree import Category, CategoryTree, CategoryWish
from api.front import Front
from api.language import language_of, pick
from api.problems import Code, Refusal
from api.routing import Route
from api.spec import Access, Spec

Position = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]

_TAG: Final = "Catalogue"


class CategoryNode(msgspec.Struct, frozen=True):
    """A category and those below it. `product_count` counts theirs too."""

    category_id: str
    name: str
    product_count: int
    children: list["CategoryNode"]


class CategoriesBody(msgspec.Struct, frozen=True):
    """The tree, from its first level on."""

    categories: list[CategoryNode]


class CategoryBody(msgspec.Struct, frozen=True):
    """A category, the way to it, and what is below it."""

    category_id: str
    name: str
    product_count: int
    path: list[CategoryName]
    children: list[CategoryNode]


class OperatorCategories(msgspec.Struct, frozen=True):
    """All categories in all languages, parents first."""

    categories: list[Category]


class PutCategory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A category, whole. Another parent moves it with all that is below."""

    name: Names
    parent_id: Slug | None = None
    position: Position = 0


class PatchCategory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be otherwise. `parent_id: null` makes it one of the first level."""

    name: Names | msgspec.UnsetType = msgspec.UNSET
    parent_id: Slug | msgspec.UnsetType | None = msgspec.UNSET
    position: Position | msgspec.UnsetType = msgspec.UNSET


_put_decoder: Final = msgspec.json.Decoder(PutCategory)
_patch_decoder: Final = msgspec.json.Decoder(PatchCategory)


async def show_tree(front: Front, request: web.Request) -> Answer:
    language = language_of(request)
    nodes = _nodes(await CategoryTree(front.engine.pool).all(), language)
    return localized(request, CategoriesBody(nodes[None]), language)


async def show_category(front: Front, request: web.Request) -> Answer:
    language = language_of(request)
    known = await CategoryTree(front.engine.pool).all()
    by_id = {category.category_id: category for category in known}
    category = by_id.get(request.match_info["category"])
    if category is None:
        raise Refusal(Code.NOT_FOUND)
    siblings = _nodes(known, language)[category.parent_id]
    node = next(each for each in siblings if each.category_id == category.category_id)
    path = [CategoryName(each, pick(by_id[each].name, language)) for each in category.path]
    body = CategoryBody(node.category_id, node.name, node.product_count, path, node.children)
    return localized(request, body, language)


def _nodes(
    categories: Iterable[Category], language: str
) -> Mapping[str | None, list[CategoryNode]]:
    """The nodes by parent, siblings in their order; those of the first level under None."""
    below: dict[str | None, list[CategoryNode]] = {None: []}
    listed = list(categories)
    for category in listed:
        below.setdefault(category.parent_id, [])
        below.setdefault(category.category_id, [])
    # Children come last in the list: counted before those above them.
    for category in reversed(listed):
        children = below[category.category_id]
        count = category.products_active + sum(child.product_count for child in children)
        name = pick(category.name, language)
        node = CategoryNode(category.category_id, name, count, children)
        below[category.parent_id].insert(0, node)
    return below


async def list_categories(front: Front, _: web.Request) -> Answer:
    return personal(OperatorCategories(await CategoryTree(front.engine.pool).all()))


async def put_category(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _put_decoder)
    wish = CategoryWish(body.parent_id, body.position, body.name)
    category_id = _slug(request.match_info["category"])
    actor = front.caller(request).user_id
    tree = CategoryTree(front.engine.pool)
    category, is_new = await tree.change(category_id, lambda _: wish, actor)
    return personal(category, 201 if is_new else 200)


async def patch_category(front: Front, request: web.Request) -> Answer:
    body = await front.bodies.json(request, _patch_decoder)
    said = msgspec.structs.asdict(body)
    changes = {name: value for name, value in said.items() if value is not msgspec.UNSET}

    def patched(before: Category | None) -> CategoryWish:
        if before is None:
            raise Refusal(Code.NOT_FOUND)
        was = {name: getattr(before, name) for name in CategoryWish.__struct_fields__}
        return CategoryWish(**(was | changes))

    actor = front.caller(request).user_id
    category_id = _slug(request.match_info["category"])
    category, _ = await CategoryTree(front.engine.pool).change(category_id, patched, actor)
    return personal(category)


async def remove_category(front: Front, request: web.Request) -> Answer:
    await front.bodies.none(request)
    actor = front.caller(request).user_id
    category_id = request.match_info["category"]
    category = await CategoryTree(front.engine.pool).remove(category_id, actor)
    if category is None:
        raise Refusal(Code.NOT_FOUND)
    return personal(category)


def _slug(text: str) -> str:
    try:
        return msgspec.convert(text, Slug)
    except msgspec.ValidationError:
        raise Refusal(Code.NOT_FOUND, "Ids are small letters, digits and dashes.") from None


_SHOWN: Final = (ACCEPT_LANGUAGE, IF_NONE_MATCH)
_PATH: Final = "/v1/admin/categories/{category}"

ROUTES: Final = (
    Route(
        "GET",
        "/v1/categories",
        show_tree,
        access=Access.VISITOR,
        spec=Spec(
            tag="Catalogue",
            summary="The tree of categories, with how many products each has",
            answers={200: CategoriesBody, 304: None},
            headers=_SHOWN,
            tells=TOLD,
        ),
    ),
    Route(
        "GET",
        "/v1/categories/{category}",
        show_category,
        access=Access.VISITOR,
        spec=Spec(
            tag="Catalogue",
            summary="A category, the way to it and what is below it",
            answers={200: CategoryBody, 304: None},
            headers=_SHOWN,
            tells=TOLD,
            codes=(Code.NOT_FOUND,),
        ),
    ),
    Route(
        "GET",
        "/v1/admin/categories",
        list_categories,
        access=Access.SUPPORT,
        spec=Spec(
            tag=_TAG,
            summary="All categories in all languages",
            answers={200: OperatorCategories},
        ),
    ),
    Route(
        "PUT",
        _PATH,
        put_category,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Create, change or move a category",
            description="The body is the whole category. Another parent moves all that is below.",
            answers={200: Category, 201: Category},
            body=PutCategory,
            codes=(Code.NOT_FOUND, Code.CONFLICT),
        ),
    ),
    Route(
        "PATCH",
        _PATH,
        patch_category,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Change some of a category",
            answers={200: Category},
            body=PatchCategory,
            codes=(Code.NOT_FOUND, Code.CONFLICT),
        ),
    ),
    Route(
        "DELETE",
        _PATH,
        remove_category,
        access=Access.OPERATOR,
        spec=Spec(
            tag=_TAG,
            summary="Remove a category that is empty",
            answers={200: Category},
            codes=(Code.NOT_FOUND, Code.CATEGORY_IN_USE, Code.CONFLICT),
        ),
    ),
)
