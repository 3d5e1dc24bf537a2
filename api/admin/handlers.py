"""The calls under /v1/admin. All of them are for operators, by the way they are registered."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.admin import specs
from api.admin.access_rules import add_rule, list_rules, remove_rule
from api.admin.admission import AdmissionBody, change_admission, show_admission
from api.admin.audit import read_audit
from api.admin.bodies import AuditPage
from api.answers import Answer, personal
from api.bodies import refuse_nul, require_json
from api.front import Front
from api.orders.store import PaymentBody
from api.paging import cursor, cursor_text, page_size
from api.paths import check_path
from api.payments.handlers import RefundBody, refund
from api.problems import Code, problem
from api.reservations.decision import SkuText, check_key
from api.routing import Handler, Route
from api.sales.bodies import OperatorSaleBody, OperatorSalesBody, operator_sale_body
from api.spec import Access, Spec
from engine.errors import RedisUnavailable, StaleEpoch
from engine.launching import launch_sale
from engine.model import UNITS_MAX
from engine.sales import Sale, parse_sale_document

DOCUMENT_BYTES_MAX: Final = 1_048_576  # 1000 SKUs with names in a few languages.

OperatorHandler = Callable[[Front, web.Request, str], Awaitable[Answer]]


class OpenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of open; `now` moves a later start of the window to this moment."""

    now: bool = False


class ExtendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of extend."""

    closes_at: Annotated[datetime, msgspec.Meta(tz=True)]

    def __post_init__(self) -> None:
        try:
            self.closes_at.astimezone(UTC)
        except OverflowError:
            raise ValueError("closes_at is beyond the calendar in UTC") from None


class RestockBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of restock: units to add."""

    sku: SkuText
    units: Annotated[int, msgspec.Meta(ge=1, le=UNITS_MAX)]


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last audit entry of a page."""

    entry_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


_end_decoder: Final = msgspec.json.Decoder(PageEnd)
_open_decoder: Final = msgspec.json.Decoder(OpenBody)
_extend_decoder: Final = msgspec.json.Decoder(ExtendBody)
_restock_decoder: Final = msgspec.json.Decoder(RestockBody)

_CHANGE_ADMISSION: Final = specs.change_admission(AdmissionBody)
_REFUND: Final = Spec(
    tag="Payments",
    summary="Refund a payment, whoever made it",
    description="202: the worker asks the provider. A body may name the amount, which is the whole.",
    body=RefundBody,
    body_required=False,
    answers={202: PaymentBody},
    codes=(Code.NOT_REFUNDABLE,),
)


async def create_sale(front: Front, request: web.Request, actor: str) -> Answer:
    body = await front.bodies.raw(request, DOCUMENT_BYTES_MAX)
    require_json(request.headers)
    refuse_nul(body)
    sale_id = (document := parse_sale_document(body)).sale_id
    return await _changed(
        front,
        sale_id,
        lambda: launch_sale(front.engine, document, actor),
        201,
        ("Location", f"/v1/admin/sales/{sale_id}"),
    )


async def list_sales(front: Front, _: web.Request, _actor: str) -> Answer:
    sales = await front.engine.sales.list()
    return personal(OperatorSalesBody([await _shown(front, sale) for sale in sales]))


async def show_sale(front: Front, request: web.Request, _actor: str) -> Answer:
    sale = await front.engine.sales.get(request.match_info["sale"])
    return personal(await _shown(front, sale))


async def open_sale(front: Front, request: web.Request, actor: str) -> Answer:
    sale_id = request.match_info["sale"]
    now = (await front.bodies.optional_json(request, _open_decoder, OpenBody())).now
    return await _changed(front, sale_id, lambda: front.engine.sales.open(sale_id, actor, now=now))


async def pause_sale(front: Front, request: web.Request, actor: str) -> Answer:
    sale_id = await _sale_without_body(front, request)
    return await _changed(front, sale_id, lambda: front.engine.sales.pause(sale_id, actor))


async def resume_sale(front: Front, request: web.Request, actor: str) -> Answer:
    sale_id = await _sale_without_body(front, request)
    return await _changed(front, sale_id, lambda: front.engine.sales.resume(sale_id, actor))


async def close_sale(front: Front, request: web.Request, actor: str) -> Answer:
    sale_id = await _sale_without_body(front, request)
    return await _changed(front, sale_id, lambda: front.engine.sales.close(sale_id, actor))


async def extend_sale(front: Front, request: web.Request, actor: str) -> Answer:
    sale_id = request.match_info["sale"]
    closes_at = (await front.bodies.json(request, _extend_decoder)).closes_at
    return await _changed(
        front, sale_id, lambda: front.engine.sales.extend(sale_id, closes_at, actor)
    )


async def restock_sale(front: Front, request: web.Request, actor: str) -> Answer:
    sale_id = request.match_info["sale"]
    body = await front.bodies.json(request, _restock_decoder)
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        check_key(key)
    return await _changed(
        front,
        sale_id,
        lambda: front.engine.sales.restock(sale_id, body.sku, body.units, actor, key),
    )


async def refund_payment(front: Front, request: web.Request, actor: str) -> Answer:
    return await refund(front, request, request.match_info["payment"], actor)


async def show_audit(front: Front, request: web.Request, _actor: str) -> Answer:
    size = page_size(request)
    end = cursor(request, _end_decoder)
    before = end.entry_id if end else None
    sale_id = request.query.get("sale")
    if sale_id is not None:
        check_path({"sale": sale_id})
    entries = await read_audit(front.engine.pool, sale_id, before, size)
    more = cursor_text(PageEnd(entries[-1].entry_id)) if len(entries) == size else None
    return personal(AuditPage(entries, more))


async def _sale_without_body(front: Front, request: web.Request) -> str:
    await front.bodies.none(request)
    return request.match_info["sale"]


async def _changed(
    front: Front,
    sale_id: str,
    change: Callable[[], Awaitable[Sale]],
    status: int = 200,
    *headers: tuple[str, str],
) -> Answer:
    try:
        sale = await change()
    except (RedisUnavailable, StaleEpoch) as error:
        # Postgres has the change; the error says so and when it takes effect.
        return problem(Code.UNAVAILABLE, str(error))
    finally:
        front.engine.directory.forget(sale_id)
    return personal(await _shown(front, sale), status, *headers)


async def _shown(front: Front, sale: Sale) -> OperatorSaleBody:
    engine = front.engine
    try:
        # Not the buyers' copy: an operator looks for what was just changed.
        stock = await engine.inventory.snapshot(sale.sale_id)
    except RedisUnavailable:
        return operator_sale_body(sale, None, engine.clock.now_ms())
    return operator_sale_body(sale, stock, engine.clock.now_ms())


def _with_actor(handler: OperatorHandler) -> Handler:
    async def call(front: Front, request: web.Request) -> Answer:
        return await handler(front, request, front.caller(request).user_id)

    return call


def _route(method: str, path: str, handler: OperatorHandler, spec: Spec) -> Route:
    call = _with_actor(handler)
    return Route(method, f"/v1/admin{path}", call, access=Access.OPERATOR, spec=spec)


ROUTES = (
    _route("POST", "/sales", create_sale, specs.CREATE_SALE),
    _route("GET", "/sales", list_sales, specs.LIST_SALES),
    _route("GET", "/sales/{sale}", show_sale, specs.SHOW_SALE),
    _route("POST", "/sales/{sale}/open", open_sale, specs.open_sale(OpenBody)),
    _route("POST", "/sales/{sale}/pause", pause_sale, specs.PAUSE_SALE),
    _route("POST", "/sales/{sale}/resume", resume_sale, specs.RESUME_SALE),
    _route("POST", "/sales/{sale}/close", close_sale, specs.CLOSE_SALE),
    _route("POST", "/sales/{sale}/extend", extend_sale, specs.extend_sale(ExtendBody)),
    _route("POST", "/sales/{sale}/restock", restock_sale, specs.restock_sale(RestockBody)),
    _route("GET", "/sales/{sale}/admission", show_admission, specs.show_admission(AdmissionBody)),
    _route("PUT", "/sales/{sale}/admission", change_admission, _CHANGE_ADMISSION),
    _route("PATCH", "/sales/{sale}/admission", change_admission, _CHANGE_ADMISSION),
    _route("GET", "/access-rules", list_rules, specs.LIST_RULES),
    _route("POST", "/access-rules", add_rule, specs.ADD_RULE),
    _route("DELETE", "/access-rules/{rule}", remove_rule, specs.REMOVE_RULE),
    _route("GET", "/audit", show_audit, specs.SHOW_AUDIT),
    _route("POST", "/payments/{payment}/refunds", refund_payment, _REFUND),
)
