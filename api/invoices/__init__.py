"""Invoices: numbered once, kept as issued, printed from the browser."""
