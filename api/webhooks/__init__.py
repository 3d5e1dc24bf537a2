"""Takes payment providers' webhooks in: verified on the raw bytes, stored, then answered."""
