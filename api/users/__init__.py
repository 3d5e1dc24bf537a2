"""Registers buyers, logs them in and tells them who they are."""
