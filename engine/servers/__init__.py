"""Runs Valkey and Postgres for those who bring none: our own configuration, data kept.

Knows nothing of what the engine stores in them.
"""

from engine.servers.postgres import EmbeddedPostgres
from engine.servers.process import ServerFailed
from engine.servers.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedValkey", "ServerFailed"]
