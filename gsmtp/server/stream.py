"""The content of a message as `on_data` gets it: drawn from the connection while the hook runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from gsmtp.protocol.envelope import Envelope
from gsmtp.protocol.server import events
from gsmtp.reply import Reject, Reply


class Source(Protocol):
    """Where the content comes from: the dialogue."""

    def next_content(self, envelope: Envelope) -> events.Content | events.ContentRefused:
        """What comes next; waits for the client. Raises ConnectionLost."""


class ContentStream:
    """The content as it arrives; see gsmtp.handler.Stream. `size`: octets so far.

    `read` raises Reject with the reply to come when the protocol refuses the content (too large, bare newlines) or
    the client gives it up between chunks, and ConnectionLost when the client is gone.
    """

    def __init__(self, source: Source, first: events.Content) -> None:
        self._source = source
        self._envelope = first.envelope
        self._event: events.Content | None = first
        self._refused: Reply | None = None
        self._buffer = first.data
        self.size = len(first.data)

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
        while not self._buffer:
            if self._refused is not None:
                raise Reject(self._refused.code, self._refused.enhanced, self._refused.text)
            if self._event is None or self._event.last:
                return b""
            self._advance()
        piece, self._buffer = self._buffer, b""
        return piece

    def _advance(self) -> None:
        event = self._source.next_content(self._envelope)
        if isinstance(event, events.Content):
            self._event, self._buffer = event, event.data
            self.size += len(event.data)
        else:
            self._event, self._refused = None, event.reply

    def drain(self) -> events.Content | None:
        """Read on to the end and throw it away. The event to answer, None when the protocol has refused."""
        while self._event is not None and not self._event.last:
            self._advance()
        return self._event
