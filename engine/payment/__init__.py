"""Takes money: providers, payments, captures, refunds, webhooks. Moves stock only through `engine.store`."""
