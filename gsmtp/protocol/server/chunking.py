"""Content by BDAT (RFC 3030).

BDAT is taken in every state, because the octets that follow must not become commands. Where it is refused they are
read and thrown away, and the transaction has failed: a client that pipelines has more chunks under way, and a message
must not come out with one of them missing. They get the same refusal, up to the one with LAST, RSET, EHLO or a MAIL
that is accepted. Where it cannot be known how many octets follow, the session ends.
"""

from __future__ import annotations

from gsmtp.protocol.framing import ChunkReader, parse_chunk
from gsmtp.protocol.server import replies, states
from gsmtp.protocol.server.events import Content, ContentRefused, Refused, Reset
from gsmtp.protocol.server.states import State
from gsmtp.protocol.server.transaction import Transaction
from gsmtp.reply import Reply

_NO_BDAT = {
    states.FRESH: replies.HELLO_FIRST,
    states.INSECURE: replies.TLS_REQUIRED,
    states.ANONYMOUS: replies.AUTH_REQUIRED,
    states.READY: replies.MAIL_FIRST,
    states.MAIL: replies.BDAT_NO_RECIPIENTS,
}
_UNCHANGED = (states.FRESH, states.INSECURE, states.ANONYMOUS)


class Chunking(Transaction):
    """One chunk after another, up to the last."""

    _after_chunk: State  # of the chunk under way

    def _drop_envelope(self) -> None:
        self._chunks = self._chunks_refused = None
        super()._drop_envelope()

    def _lose_place(self, verb: bytes) -> None:
        """After a refusal: end the session when the line was a BDAT. How many octets follow it is not known, and none
        of them may become a command."""
        if verb.upper() == b"BDAT" and self.state is not states.CLOSED:
            self._say(replies.BDAT_LOST)
            self.state = states.CLOSED

    def _unknown(self, verb: str, argument: str) -> None:
        if verb.startswith("BDAT\t"):
            self._bdat("BDAT", "")
        else:
            super()._unknown(verb, argument)

    def _bdat(self, verb: str, argument: str) -> None:
        chunk = parse_chunk(argument)
        if chunk is None:
            self._refuse(verb, replies.BDAT_SYNTAX)
            self._lose_place(b"BDAT")
            return
        size, last, sound = chunk
        # An empty chunk costs the client nothing, so it counts as a command that brings no mail.
        if not size and not last and self._idles(verb):
            return
        options = self._options
        chunks = self._chunks
        if chunks is None:
            # RFC 3030 2 wants CRLF alone in text that comes by BDAT, and what is refused after DATA would only come
            # this way: so allow_bare_newlines holds here too, but for content that was declared binary.
            newlines, max_line = options.allow_bare_newlines, options.max_content_line_length
            if self.envelope is not None and self.envelope.parameters.get("BODY") == "BINARYMIME":
                newlines, max_line = "accept", 0
            chunks = self._chunks = ChunkReader(newlines, options.max_message_size, max_line)
        chunks.begin(size, last)
        self._after_chunk = self.state if self.state in _UNCHANGED else states.READY
        if self._chunks_refused is None:
            refusal = self._bdat_refusal(sound)
            if refusal is None and chunks.fault is not None:
                refusal = replies.CONTENT_FAULTS[chunks.fault]
            if refusal is None:
                self._after_chunk = states.CHUNKED
            else:
                self._refuse_chunks(refusal)
        self.state = states.CHUNK

    def _bdat_refusal(self, sound: bool) -> Reply | None:
        refusal = _NO_BDAT.get(self.state)
        if refusal is None and "CHUNKING" not in self._offer.keywords:
            refusal = replies.NO_CHUNKING
        return refusal or (None if sound else replies.BDAT_SYNTAX)

    def _refuse_chunks(self, reply: Reply) -> None:
        """The transaction has failed; `reply` is said at the end of this chunk, and of those that follow it."""
        envelope = self.envelope
        self._errors += 1
        self._chunks_refused = reply
        if envelope is not None and envelope.recipients:
            self._queue.append(ContentRefused(envelope, reply))
        else:
            self._queue.append(Refused("BDAT", reply))
            if envelope is not None:
                self._queue.append(Reset(envelope))
        self.envelope = None

    def _read_chunk(self) -> bool:
        """Read what has come of a chunk; whether there was something to do."""
        chunks = self._chunks
        assert chunks is not None
        data = self._lines.take_some(chunks.left)
        if not data and chunks.left:
            return False
        content = chunks.read(data)
        if chunks.fault is not None and self._chunks_refused is None:
            self._refuse_chunks(replies.CONTENT_FAULTS[chunks.fault])
            self._after_chunk = states.READY
        refused, envelope = self._chunks_refused, self.envelope
        if refused is None and content and not (chunks.last and not chunks.left):
            assert envelope is not None
            self._queue.append(Content(envelope, content, False))
        if chunks.left:
            return bool(self._queue)
        self.state = self._after_chunk
        if chunks.last:
            self._chunks = self._chunks_refused = None
        if refused is not None:
            self._say(refused)
        elif chunks.last:
            assert envelope is not None
            event = Content(envelope, content, True)
            self._pending = (event, replies.ACCEPTED, self._content_decided)
            self._queue.append(event)
        else:
            self._say(Reply(250, "2.0.0", f"{chunks.length} octets received"))
        return True
