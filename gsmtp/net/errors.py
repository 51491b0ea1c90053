"""The errors of connections, in both roles.

All that a transport raises is a ConnectionLost. SessionEnded and DeadlineExceeded come from outside: they are thrown
into the greenlet of a session while it waits.
"""

from __future__ import annotations

from gsmtp.reply import Reply


class ConnectionLost(ConnectionError):
    """The connection can no longer be used: the peer closed or reset it, or it could not be made."""


class ConnectionTimedOut(ConnectionLost, TimeoutError):
    """A deadline passed while a blocking transport waited for its peer."""


class TlsFailed(ConnectionLost):
    """The TLS handshake failed. The text is OpenSSL's reason, such as CERTIFICATE_VERIFY_FAILED."""


class SessionEnded(ConnectionLost):
    """The server ends the session. `reply` is the last reply to the client, `reason` is for the log."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply


class DeadlineExceeded(BaseException):
    """The deadline timer throws this into a session's greenlet.

    It is neither an Exception nor a gevent.Timeout, because a hook may catch those.
    """
