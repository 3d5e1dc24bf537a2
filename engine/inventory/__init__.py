"""Reserves stock atomically in Redis, a batch at a time. Knows nothing of Postgres or payment."""

from engine.inventory.batcher import Batcher
from engine.inventory.inventory import Inventory, SaleRef, StockSnapshot

__all__ = ["Batcher", "Inventory", "SaleRef", "StockSnapshot"]
