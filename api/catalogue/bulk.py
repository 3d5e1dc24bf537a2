"""The calls that take products in from files and hand them out as files. Nothing is held whole."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from tempfile import TemporaryFile
from typing import IO, Final

import msgspec
from aiohttp import web
from multidict import istr

from api.answers import CONTENT_TYPE, NO_STORE, SECURITY_HEADERS, Answer, StreamedAnswer, personal
from api.bodies import PLACE
from api.catalogue.exporting import export_products
from api.catalogue.importing import Form, ImportReport, import_products
from api.front import Front
from api.problems import Code, Refusal
from api.protocol import HttpConnection
from api.queries import read_query
from api.routing import Route
from api.spec import Access, Spec

RECEIVE_SECONDS_MAX: Final = 300.0  # The largest file over a line of 2 Mbit/s; operators only.
PIECE_BYTES: Final = 65_536  # Some hundred rows: a few milliseconds between two others' requests.
_MEDIA: Final = {Form.CSV: "text/csv", Form.JSONL: "application/x-ndjson"}
_FORMS: Final = {media: form for form, media in _MEDIA.items()}
_TAG: Final = "Catalogue"


class ImportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of an import."""

    dry_run: bool = False
    skip_bad: bool = False


class ExportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of an export."""

    format: Form = Form.JSONL


async def take_in(front: Front, request: web.Request) -> Answer:
    query = read_query(request, ImportQuery)
    media = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    form = _FORMS.get(media)
    if form is None:
        raise Refusal(Code.INVALID_REQUEST, f"Content-Type must be {' or '.join(_FORMS)}.")
    # The file is on disk before anything begins: no line that is slow keeps a transaction open.
    with TemporaryFile() as file:
        await _receive(front, request, file)
        file.seek(0)
        report = await import_products(
            front.engine.pool,
            pieces_of(file),
            form,
            front.caller(request).user_id,
            dry_run=query.dry_run,
            skip_bad=query.skip_bad,
        )
    return personal(report)


async def hand_out(front: Front, request: web.Request) -> Answer:
    form = read_query(request, ExportQuery).format
    day = datetime.fromtimestamp(front.engine.clock.now_ms() / 1000, UTC).date()
    headers = (
        *SECURITY_HEADERS,
        NO_STORE,
        (CONTENT_TYPE, f"{_MEDIA[form]}; charset=utf-8"),
        (istr("Content-Disposition"), f'attachment; filename="products-{day}.{form}"'),
    )
    if request.method == "HEAD":
        return Answer(200, b"", headers)
    assert front.engine.settings.postgres_url is not None
    pieces = export_products(front.engine.settings.postgres_url, form)
    # The first piece is waited for: until it is here a failure can still be told.
    first = await anext(pieces, b"")
    return StreamedAnswer(200, first, headers, pieces=pieces)


async def pieces_of(file: IO[bytes]) -> AsyncIterator[bytes]:
    """The file, PIECE_BYTES at a time."""
    while piece := file.read(PIECE_BYTES):
        yield piece


async def _receive(front: Front, request: web.Request, file: IO[bytes]) -> None:
    """The body, into the file. Raises Refusal for more than the bound."""
    bytes_max = front.engine.settings.import_bytes_max
    place = request[PLACE]
    place.measured = False  # By how fast its client sends.
    received = 0
    with front.limit.stepped_out(place.priority), _granted(request):
        while piece := await request.content.readany():
            received += len(piece)
            if received > bytes_max:
                raise Refusal(Code.BODY_TOO_LARGE, f"At most {bytes_max} bytes.")
            file.write(piece)


@contextmanager
def _granted(request: web.Request) -> Iterator[None]:
    """Lets the body take longer to arrive than others may."""
    connection = request.protocol
    assert isinstance(connection, HttpConnection)
    connection.body_seconds = RECEIVE_SECONDS_MAX
    try:
        yield
    finally:
        connection.body_seconds = 0.0


_FILE: Final = (
    "CSV has a row per SKU: `product_id`, `category_id`, `status`, `brand`, `name.en`, `name.zh-CN`,"
    " `description.en`, `description.zh-CN`, `images` (URLs, blanks between), `attributes` (JSON),"
    " `sku`, `options` (JSON), `weight_grams`, `active`, and `price.CNY`, `price.USD`, … in the"
    " smallest unit. What is the product's stands on its first row only. JSON Lines has a product"
    " per line, as `PUT /v1/admin/products/{product}` takes it, with its `product_id`."
)

ROUTES: Final = (
    Route(
        "POST",
        "/v1/admin/products/import",
        take_in,
        access=Access.OPERATOR,
        measured=False,
        spec=Spec(
            tag=_TAG,
            summary="Create and change products from a file of CSV or JSON Lines",
            description=f"{_FILE} A product that is there already is made what the file says; SKUs"
            " that it does not name stay. Nothing is stored if a row is bad, unless `skip_bad`:"
            " then that product is left out. Every bad row is reported, the first hundred in words.",
            answers={200: ImportReport},
            body=bytes,
            body_media="text/csv, application/x-ndjson",
            query=ImportQuery,
            codes=(Code.BODY_TOO_LARGE, Code.CONFLICT, Code.SKU_TAKEN),
        ),
    ),
    Route(
        "GET",
        "/v1/admin/products/export",
        hand_out,
        access=Access.OPERATOR,
        measured=False,
        spec=Spec(
            tag=_TAG,
            summary="All products as a file that can be taken in again",
            description=_FILE,
            answers={200: "application/x-ndjson, text/csv"},
            query=ExportQuery,
        ),
    ),
)
