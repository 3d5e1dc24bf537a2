"""Makes a sale with everything it needs: its stock, and its waiting room if the document has one."""

from engine.admission.room.settings import RoomChanges
from engine.core import Engine
from engine.sales import Sale, SaleDocument


async def launch_sale(engine: Engine, document: SaleDocument, actor: str) -> Sale:
    """As SaleControl.create. The worker would furnish the room within a second; visitors may come sooner."""
    sale = await engine.sales.create(document, actor)
    if document.room is not None:
        await engine.room_control.change(sale.sale_id, actor, RoomChanges())
    return sale
