"""The catalogue: categories, products, SKUs and what they cost. Stock is counted by the engine's store."""
