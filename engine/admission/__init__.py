"""Decides who may come in now. Knows nothing of sales, stock or HTTP."""

from engine.admission.in_flight import InFlightLimit
from engine.admission.readiness import unreachable_servers
from engine.admission.throttle import Throttle

__all__ = ["InFlightLimit", "Throttle", "unreachable_servers"]
