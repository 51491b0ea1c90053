"""Content by BDAT (RFC 3030).

BDAT is taken in every state, because the octets that follow must not become commands. Where it is refused they are
read and thrown away, and the transaction has failed: a client that pipelines has more chunks under way, and a message
must not come out with one of them missing. They get the same refusal, up to the one with LAST, RSET, EHLO or a MAIL
that is accepted. Where it cannot be known how many octets follow, the session ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gsmtp.protocol.framing import ChunkReader, parse_chunk
from gsmtp.protocol.server import replies, states
from gsmtp.protocol.server.events import Content, ContentRefused, Outcome, Refused, Reset
from gsmtp.protocol.server.transaction import content_decided
from gsmtp.protocol.server.transitions import CHUNK_BEGUN, CHUNK_REFUSED, CHUNK_SKIPPED, CHUNK_TAKEN, Transition, move
from gsmtp.reply import Reply

if TYPE_CHECKING:
    from gsmtp.protocol.server.session import ServerSession

_NO_BDAT = {
    states.FRESH: replies.HELLO_FIRST,
    states.INSECURE: replies.TLS_REQUIRED,
    states.ANONYMOUS: replies.AUTH_REQUIRED,
    states.READY: replies.MAIL_FIRST,
    states.MAIL: replies.BDAT_NO_RECIPIENTS,
}


class Chunks:
    """One chunk after another, up to the last.

    `reader` reads them all. `refused` is the reply to each once one of them was refused. `end` is the transition at
    the end of the present chunk.
    """

    __slots__ = ("end", "reader", "refused")

    def __init__(self, reader: ChunkReader) -> None:
        self.reader = reader
        self.refused: Reply | None = None
        self.end: Transition = CHUNK_TAKEN


def bdat(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """BDAT: read a chunk, or throw it away."""
    chunk = parse_chunk(argument)
    if chunk is None:
        smtp.refuse(verb, replies.BDAT_SYNTAX)
        smtp.lose_place()
        return None
    size, last, sound = chunk
    # An empty chunk costs the client nothing, so it counts as a command that brings no mail.
    if not size and not last and smtp.idles():
        return replies.TOO_MANY_COMMANDS
    chunks = smtp.chunks
    if chunks is None:
        chunks = smtp.chunks = Chunks(_reader(smtp))
    reader = chunks.reader
    reader.begin(size, last)
    refusal: Reply | None = None
    if chunks.refused is None:
        refusal = _refusal(smtp, sound)
        if refusal is None and reader.fault is not None:
            refusal = replies.CONTENT_FAULTS[reader.fault]
    if refusal is None and chunks.refused is None:
        chunks.end = CHUNK_TAKEN
    else:
        chunks.end = CHUNK_SKIPPED.get(smtp.state, CHUNK_REFUSED)
    if refusal is not None:
        _refuse(smtp, chunks, refusal)
    move(smtp, CHUNK_BEGUN)
    return None


def _reader(smtp: ServerSession) -> ChunkReader:
    # RFC 3030 2 wants CRLF alone in text that comes by BDAT, and what is refused after DATA would only come this way:
    # so allow_bare_newlines holds here too, but for content that was declared binary.
    options, envelope = smtp.options, smtp.envelope
    newlines, max_line = options.allow_bare_newlines, options.max_content_line_length
    if envelope is not None and envelope.parameters.get("BODY") == "BINARYMIME":
        newlines, max_line = "accept", 0
    return ChunkReader(newlines, options.max_message_size, max_line)


def _refusal(smtp: ServerSession, sound: bool) -> Reply | None:
    refusal = _NO_BDAT.get(smtp.state)
    if refusal is None and "CHUNKING" not in smtp.offer.keywords:
        refusal = replies.NO_CHUNKING
    return refusal or (None if sound else replies.BDAT_SYNTAX)


def _refuse(smtp: ServerSession, chunks: Chunks, reply: Reply) -> None:
    """End the transaction. `reply` is said at the end of this chunk, and of those that follow it."""
    envelope = smtp.envelope
    smtp.errors += 1
    chunks.refused = reply
    if envelope is not None and envelope.recipients:
        smtp.queue.append(ContentRefused(envelope, reply))
    else:
        smtp.queue.append(Refused("BDAT", reply))
        if envelope is not None:
            smtp.queue.append(Reset(envelope))
    smtp.transaction = None


def read_chunk(smtp: ServerSession) -> bool:
    """Read what has come of a chunk; return whether there was something to do."""
    chunks = smtp.chunks
    assert chunks is not None
    reader = chunks.reader
    octets = smtp.lines.take_some(reader.left)
    if not octets and reader.left:
        return False
    content = reader.read(octets)
    if reader.fault is not None and chunks.refused is None:
        _refuse(smtp, chunks, replies.CONTENT_FAULTS[reader.fault])
        chunks.end = CHUNK_REFUSED
    refused, envelope = chunks.refused, smtp.envelope
    if refused is None and content and not (reader.last and not reader.left):
        assert envelope is not None
        smtp.queue.append(Content(envelope, content, False))
    if reader.left:
        return bool(smtp.queue)
    move(smtp, chunks.end)
    if reader.last:
        smtp.chunks = None
    if refused is not None:
        smtp.say(refused)
    elif reader.last:
        assert envelope is not None
        smtp.ask((Content(envelope, content, True), replies.ACCEPTED, content_decided))
    else:
        smtp.say(Reply(250, "2.0.0", f"{reader.length} octets received"))
    return True
