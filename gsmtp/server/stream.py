"""The content of a message as `on_data` reads it while it arrives.

The hook's greenlet reads; the session's greenlet gives one piece at a time, and the next only once the reader has asked
for it. So a slow hook makes its client wait, and no more than one piece is kept. The stream must not know where the
pieces come from.
"""

from __future__ import annotations

from collections.abc import Iterator

from gevent.event import Event

from gsmtp.net.errors import ConnectionLost
from gsmtp.reply import Reject, Reply


class StreamLost(ConnectionLost):
    """The client is gone, or its session has ended, before the content was whole."""


class ContentStream:
    """See gsmtp.handler.Stream. `size`: octets so far; `paused` is set while the reader waits for a piece.

    Reading raises Reject with the reply to come when the protocol refuses the content (too large, bare newlines) or
    the client gives it up between chunks; ConnectionLost when the client is gone; ValueError once the hook that the
    stream was made for has returned.
    """

    def __init__(self, first: bytes, last: bool) -> None:
        """`first`: the first piece; `last`: whether it is the only one."""
        self._buffer = first
        self._last = last
        self._refusal: Reply | None = None
        self._lost: str | None = None
        self._closed = False
        self._available = Event()
        self.paused = Event()
        self.size = len(first)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._piece():
            yield piece

    def read(self, size: int = -1) -> bytes:
        """See gsmtp.handler.Stream."""
        if size < 0:
            return b"".join(self)
        piece = self._piece() if size else b""
        self._buffer = piece[size:]
        return piece[:size]

    def _piece(self) -> bytes:
        """The next piece, b"" at the end."""
        while not self._buffer:
            # Each is made anew: a kept exception would refer to the frames it went through, and they to the stream.
            if self._lost is not None:
                raise StreamLost(self._lost)
            if self._refusal is not None:
                raise Reject(self._refusal.code, self._refusal.enhanced, self._refusal.text)
            if self._last:
                return b""
            if self._closed:
                raise ValueError("on_data has returned")
            self._available.clear()
            self.paused.set()
            self._available.wait()
        piece, self._buffer = self._buffer, b""
        return piece

    # For the session

    def feed(self, data: bytes, last: bool) -> None:
        """Give the reader its next piece, once it has asked for one."""
        self._buffer = data
        self._last = last
        self.size += len(data)
        self._wake()

    def refuse(self, reply: Reply) -> None:
        """The content ends here; reading raises Reject with this reply."""
        self._refusal = reply
        self._wake()

    def lose(self, reason: str) -> None:
        """The content ends here; reading raises ConnectionLost."""
        self._lost = reason
        self._wake()

    def close(self) -> None:
        """The hook has returned: what comes now is nobody's."""
        self._closed = True
        self._buffer = b""
        self._available.set()

    def _wake(self) -> None:
        self.paused.clear()
        self._available.set()
