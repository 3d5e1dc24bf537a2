"""How orders are sent: methods, zones, fees, shipments and the queue of what waits to leave."""
