"""Handlers that are ready to use."""
