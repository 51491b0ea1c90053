"""XCLIENT and XFORWARD at the receiving end: what a trusted peer says of its client goes into the session.

gsmtp.protocol.xclient reads their arguments, and says what they mean and when they are allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gsmtp.protocol import xclient
from gsmtp.protocol.server.events import ClientChanged, Outcome
from gsmtp.protocol.server.transitions import CLIENT_CHANGED, move

if TYPE_CHECKING:
    from gsmtp.protocol.server.session import ServerSession

_NO_ATTRIBUTES = xclient.ClientAttributes()


def xclient_command(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """XCLIENT: change the client's address, names and user, and begin anew with the banner."""
    session = smtp.session
    if not session.trusted:
        return xclient.NOT_ALLOWED
    try:
        said = xclient.parse_xclient(argument)
    except xclient.XclientError as error:
        return error.reply
    smtp.client = known = (smtp.client or _NO_ATTRIBUTES).updated(said)
    if isinstance(known.address, str):
        session.peer = (known.address, known.port if isinstance(known.port, int) else 0)
    elif known.address is not None:
        session.peer = None
    if isinstance(known.destination_address, str):
        port = known.destination_port
        session.local = (known.destination_address, port if isinstance(port, int) else 0)
    session.user = known.login if isinstance(known.login, str) else None
    session.helo = known.helo if isinstance(known.helo, str) else ""
    session.esmtp = known.proto == "ESMTP"
    session.forwarded = None
    smtp.queue.append(ClientChanged())
    move(smtp, CLIENT_CHANGED)
    return None


def xforward_command(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """XFORWARD: note what the records are to say of the client."""
    session = smtp.session
    if not session.trusted:
        return xclient.NOT_ALLOWED
    try:
        said = xclient.parse_xforward(argument)
    except xclient.XclientError as error:
        return error.reply
    session.forwarded = session.forwarded.updated(said) if session.forwarded is not None else said
    return xclient.FORWARDED
