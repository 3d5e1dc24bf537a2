"""Compiled kernels, leaves that import nothing of ours, and their plain forms (ext/plain).

Whoever needs a kernel imports it from here and gets the plain form where ext/ is not compiled.
The gate has no plain form: without it aiohttp serves alone.
"""

try:
    from ext.batch import ReserveBatch
    from ext.draw import draw as draw_places
    from ext.holders import HolderTable
    from ext.ids import make_reservation_id
    from ext.limit import Limit
    from ext.meter import Meter
    from ext.records import split_batch
    from ext.room import Room
    from ext.throttle import ClientTable, Throttle
    from ext.tickets import Ticket, TicketKey
    from ext.tokens import TokenVerifier

    COMPILED = True
except ImportError:
    from ext.plain.batch import ReserveBatch  # type: ignore[assignment]
    from ext.plain.draw import draw as draw_places
    from ext.plain.holders import HolderTable  # type: ignore[assignment]
    from ext.plain.ids import make_reservation_id
    from ext.plain.limit import Limit  # type: ignore[assignment]
    from ext.plain.meter import Meter  # type: ignore[assignment]
    from ext.plain.records import split_batch
    from ext.plain.room import Room  # type: ignore[assignment]
    from ext.plain.throttle import ClientTable, Throttle  # type: ignore[assignment]
    from ext.plain.tickets import Ticket, TicketKey  # type: ignore[assignment]
    from ext.plain.tokens import TokenVerifier  # type: ignore[assignment]

    COMPILED = False

__all__ = [
    "COMPILED",
    "ClientTable",
    "HolderTable",
    "Limit",
    "Meter",
    "ReserveBatch",
    "Room",
    "Throttle",
    "Ticket",
    "TicketKey",
    "TokenVerifier",
    "draw_places",
    "make_reservation_id",
    "split_batch",
]
