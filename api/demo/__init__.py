"""The demo shop: one open sale to try the engine on."""
