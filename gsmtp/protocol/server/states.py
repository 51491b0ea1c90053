"""The states of a session; gsmtp.protocol.server.session says what they mean and what leads from one to another."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """See there."""

    # Enum's own is written in Python, and the table of actions is asked at every command.
    __hash__ = object.__hash__

    CONNECTED = "connected"
    FRESH = "fresh"
    INSECURE = "insecure"
    ANONYMOUS = "anonymous"
    AUTH = "auth"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    CONTENT = "content"
    CHUNK = "chunk"
    CHUNKED = "chunked"
    CLOSED = "closed"


# Looking up a member on an Enum class costs ten times as much as a global (Python 3.11), several times a command.
CONNECTED = State.CONNECTED
FRESH = State.FRESH
INSECURE = State.INSECURE
ANONYMOUS = State.ANONYMOUS
AUTH = State.AUTH
READY = State.READY
MAIL = State.MAIL
RCPT = State.RCPT
CONTENT = State.CONTENT
CHUNK = State.CHUNK
CHUNKED = State.CHUNKED
CLOSED = State.CLOSED
