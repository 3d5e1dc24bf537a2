"""Decides who may come in now. Knows nothing of stock or HTTP."""

from engine.admission.limit import AdmissionLimit, Priority
from engine.admission.readiness import unreachable_servers
from engine.admission.throttle import Throttle

__all__ = ["AdmissionLimit", "Priority", "Throttle", "unreachable_servers"]
