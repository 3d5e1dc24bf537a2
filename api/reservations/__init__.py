"""Reserves units for a buyer, shows what became of them, and gives them back."""
