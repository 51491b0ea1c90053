"""The states of a session. transitions.py says what leads from one to another, commands.py what each does with a verb.

A transaction (RFC 5321 3.3) is open in MAIL, RCPT, CONTENT and CHUNKED, and during a CHUNK that belongs to it.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """What a session waits for; the value says what is true in the state."""

    # Enum's own is written in Python, and the tables are asked at every command.
    __hash__ = object.__hash__

    CONNECTED = "the banner is not decided"
    FRESH = "the client has not said hello"
    INSECURE = "hello was said; TLS is required first"
    ANONYMOUS = "hello was said; AUTH is required first"
    AUTH = "a SASL exchange is under way"
    READY = "no transaction is open"
    MAIL = "there is a reverse-path and no recipient"
    RCPT = "there is one recipient or more"
    CONTENT = "354 was said, the content arrives"
    CHUNK = "the octets of a BDAT arrive"
    CHUNKED = "a BDAT was taken, which was not the last"
    CLOSED = "nothing more is read"


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
