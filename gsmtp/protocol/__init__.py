"""SMTP without I/O: bytes in, events and bytes out. No socket, no ssl, no gevent, no clock."""
