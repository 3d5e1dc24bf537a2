"""Sales: their documents, their control by operators, and the copies that the front reads.

Postgres decides what a sale is; Redis follows. Knows nothing of reservations or orders.
"""

from engine.model import Money
from engine.sales.control import SaleControl
from engine.sales.directory import LiveStock, SaleDirectory
from engine.sales.document import SaleDocument, SaleItem, parse_sale_document
from engine.sales.sale import Sale, SalePhase

__all__ = [
    "LiveStock",
    "Money",
    "Sale",
    "SaleControl",
    "SaleDirectory",
    "SaleDocument",
    "SaleItem",
    "SalePhase",
    "parse_sale_document",
]
