"""The banner, HELO, EHLO and LHLO (RFC 5321 4.1.1.1, RFC 2033 4.1), and STARTTLS (RFC 3207).

They bring a session to where a transaction may begin, and back to FRESH after STARTTLS. The handshake itself is the
driver's: a session only learns that it has succeeded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gsmtp.protocol.server import replies, states
from gsmtp.protocol.server.events import Connected, Decision, Helo, Outcome, StartTls
from gsmtp.protocol.server.transaction import drop_transaction
from gsmtp.protocol.server.transitions import AUTH_MISSING, AUTHORIZED, BANNER, CLOSING, TLS_MISSING, TLS_STARTED, move
from gsmtp.reply import Reply

if TYPE_CHECKING:
    from gsmtp.protocol.server.session import ServerSession


def open_session(smtp: ServerSession) -> bool:
    """Say the banner, or ask for it."""
    banner = smtp.extensions.banner
    if "connect" in smtp.asks:
        smtp.ask((Connected(), banner, banner_decided))
    else:
        smtp.say(banner)
        move(smtp, BANNER)
    return True


def banner_decided(smtp: ServerSession, event: Connected, reply: Reply) -> None:
    """Say the banner or the refusal."""
    smtp.say(reply)
    # RFC 5321 3.1 lets a refused client go on to QUIT; servers close at once, and clients are used to that.
    move(smtp, BANNER if reply.accepted else CLOSING)


def helo(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """HELO, EHLO and LHLO: end the transaction and offer the extensions."""
    if smtp.idles():
        return replies.TOO_MANY_COMMANDS
    if (verb == "LHLO") != smtp.options.lmtp:
        return replies.LHLO_ONLY if smtp.options.lmtp else replies.NOT_LMTP
    # The domain is not checked: clients say what they like, and RFC 5321 4.1.4 forbids a server to refuse mail for it.
    domain = argument.strip(" \t").partition(" ")[0]
    if not domain:
        return Reply(501, "5.5.4", f"Syntax: {verb} hostname")
    drop_transaction(smtp)
    extensions = smtp.extensions
    smtp.offer = offer = extensions.offer(smtp.session)
    if verb == "HELO":
        if "helo" in smtp.asks:
            return Helo(domain, False, []), extensions.helo, helo_decided
        said_hello(smtp, domain, False)
        return extensions.helo
    if "ehlo" in smtp.asks:
        return Helo(domain, True, list(offer.lines)), extensions.helo, helo_decided
    said_hello(smtp, domain, True)
    return offer.ehlo


def helo_decided(smtp: ServerSession, event: Helo, reply: Reply) -> None:
    """Say the reply, followed by the extensions as the event lists them now."""
    if reply.accepted:
        smtp.say(Reply(reply.code, "", "\n".join([reply.text, *event.extensions])))
        said_hello(smtp, event.domain, event.esmtp)
    else:
        smtp.say(reply)


def said_hello(smtp: ServerSession, domain: str, esmtp: bool) -> None:
    """Note who the client says it is."""
    smtp.session.helo = domain
    smtp.session.esmtp = esmtp
    authorize(smtp)


def say_decision(smtp: ServerSession, event: Decision, reply: Reply) -> None:
    """Say the reply of a command that changes nothing in the session."""
    smtp.say(reply)


def authorize(smtp: ServerSession) -> None:
    """Move to the state of a client that has said hello and has no transaction, after hello or AUTH."""
    session, options = smtp.session, smtp.options
    if options.tls == "required" and session.tls is None:
        move(smtp, TLS_MISSING)
    elif options.auth == "required" and session.user is None:
        move(smtp, AUTH_MISSING)
    else:
        move(smtp, AUTHORIZED)


def starttls(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """STARTTLS: ask for the handshake."""
    if smtp.session.tls is not None:
        return replies.TLS_ACTIVE
    if smtp.options.tls == "never" or "STARTTLS" in smtp.options.hide:
        return smtp.unknown(verb, argument)
    if argument:
        return replies.NO_ARGUMENT
    return StartTls(), replies.READY_FOR_TLS, say_decision


def tls_started(smtp: ServerSession, tls: Any) -> None:
    """Begin anew after the handshake.

    RFC 3207 4.2: the server forgets what it learned before. Octets that came with or after STARTTLS in the clear are
    thrown away, because they were not protected. A session that was closed meanwhile stays closed.
    """
    if smtp.state is states.CLOSED:
        return
    smtp.lines.take()
    drop_transaction(smtp)
    session = smtp.session
    session.tls = tls
    session.helo = ""
    session.esmtp = False
    session.user = None
    session.forwarded = None
    # What XCLIENT said of addresses stays, as a PROXY header does: that it is believed is for the network it came
    # from. What it said in the client's name is forgotten with what the client said.
    if smtp.client is not None:
        smtp.client = replace(smtp.client, helo=None, login=None, proto=None)
    smtp.auth = None
    # With TLS from the first octet on, the banner is yet to come.
    if smtp.state is not states.CONNECTED:
        move(smtp, TLS_STARTED)
