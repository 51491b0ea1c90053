"""Drives the protocol on real connections, inside a gevent worker."""
