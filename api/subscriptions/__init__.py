"""Tells other systems what happened to orders, payments and stock: signed, repeated, never lost silently."""
