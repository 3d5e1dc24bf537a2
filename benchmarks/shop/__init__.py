"""Benchmarks of the shop around the sales: search, a product's page, the cart, logins."""
