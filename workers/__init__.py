"""Preforked gevent worker processes for any socket protocol. Knows nothing of mail."""
