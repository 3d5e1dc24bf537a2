"""Returns of whole orders: asked for by buyers, decided by operators, refunded by the payment's provider."""
