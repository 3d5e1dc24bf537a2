"""What somebody wants to buy, what it costs now, and how it becomes an order."""
