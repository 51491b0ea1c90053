"""What ends a session, or a wait within it, from outside or by the peer."""

from __future__ import annotations

from gsmtp.reply import Reply


class ConnectionLost(ConnectionError):
    """The peer is gone: a reset, a broken pipe, or the end of a socket that was to be written."""


class SessionEnded(ConnectionLost):
    """The session is to end now, with this last word."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply


class TlsFailed(ConnectionLost):
    """The handshake failed; the text is OpenSSL's."""


class DeadlineExceeded(BaseException):
    """Thrown into a session's greenlet by the sweep. Neither an Exception nor a gevent.Timeout: users catch those."""
