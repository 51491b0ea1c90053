"""Handlers ready to use."""
