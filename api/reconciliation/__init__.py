"""Compares what providers say they booked on a day with the payments here, and lists what differs."""
