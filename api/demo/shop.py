"""Loads the demo sale: 8 SKUs, 10,000 units, open for years, paid for by itself."""

from importlib.resources import files
from typing import Final

from engine.errors import UnknownSale
from engine.sales import SaleControl, SaleDocument, parse_sale_document

SALE_ID: Final = "demo"
SHOWN_SKU: Final = "phone-black"  # the one the examples buy


def demo_document() -> SaleDocument:
    """The document that ships with the program."""
    return parse_sale_document(files("api.demo").joinpath("sale.json").read_bytes())


async def seed(sales: SaleControl, actor: str) -> bool:
    """Makes the demo sale unless there is one. Whether it was made now."""
    try:
        await sales.get(SALE_ID)
    except UnknownSale:
        await sales.create(demo_document(), actor)
        return True
    return False
