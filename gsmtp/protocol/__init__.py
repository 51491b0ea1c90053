"""SMTP without I/O: octets in, events and octets out. It uses no socket, no ssl, no gevent and no clock.

Modules of this package are for both ends of a connection; `gsmtp.protocol.server` is the receiving end.
"""
