"""Starts payments for orders, shows them, and asks for refunds."""
