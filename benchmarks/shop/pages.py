"""A product's page and a change of a cart over HTTP: what each costs the front, and how long it takes."""

from typing import Any, Final

from benchmarks.capacity.stand import Stand
from benchmarks.figures import Figure, at_most
from benchmarks.shop.load import measured, request_line
from engine.store.database import connect

SECONDS: Final = 5
PRODUCTS: Final = 5_000  # Of all: as many as are looked at in a busy hour.
BUYERS: Final = 2_000
PAGE_US_MAX: Final = 1_000  # Some statements of Postgres, one body in one language.
PAGE_MS_MAX: Final = 100.0
CART_MS_MAX: Final = 250.0  # A write, each with an fsync of its own; 32 at once.


async def measure_page(under_test: Stand) -> dict[str, Any]:
    rows = await _rows(
        under_test,
        "SELECT product_id FROM products ORDER BY hashtext(product_id) LIMIT $1",
        PRODUCTS,
    )
    lines = [
        request_line("GET", f"/v1/products/{row['product_id']}", "Accept-Language: zh-CN")
        for row in rows
    ]
    found = measured(under_test, "page", lines, SECONDS)
    return found | {"figures": _figures("a product's page", found, PAGE_MS_MAX, PAGE_US_MAX)}


async def measure_cart(under_test: Stand) -> dict[str, Any]:
    """Each buyer has a cart of his own and changes one line of it, again and again."""
    rows = await _rows(
        under_test,
        "SELECT sku FROM sale_items WHERE sale_id = 'shop' AND stocked > 3 LIMIT $1",
        BUYERS,
    )
    tokens = under_test.tokens_file.read_text().split()[:BUYERS]
    lines = [
        request_line(
            "PUT",
            f"/v1/cart/lines/shop/{row['sku']}",
            f"Authorization: Bearer {token}",
            body=f'{{"quantity": {number % 3 + 1}}}',
        )
        for number, (row, token) in enumerate(zip(rows, tokens, strict=False))
    ]
    found = measured(under_test, "cart", lines, SECONDS)
    return found | {"figures": _figures("a cart's change", found, CART_MS_MAX, None)}


def _figures(
    name: str, found: dict[str, Any], p99_ms_max: float, us_max: float | None
) -> list[dict[str, Any]]:
    cpu = round(found["front_us"])
    figures = [
        at_most(f"{name}, front CPU", cpu, "µs", us_max)
        if us_max
        else Figure(f"{name}, front CPU", cpu, "µs"),
        Figure(f"{name}, answered", found["per_second"], "/s"),
        at_most(f"{name}, p99", found["p99_ms"], "ms", p99_ms_max, f"p50 {found['p50_ms']}"),
    ]
    return [figure.as_dict() for figure in figures]


async def _rows(under_test: Stand, statement: str, *values: object) -> Any:
    connection = await connect(under_test.postgres_url)
    try:
        return await connection.fetch(statement, *values)
    finally:
        await connection.close()
