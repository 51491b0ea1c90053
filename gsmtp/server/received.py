"""The Received header field that each message gets (RFC 5321 4.4, RFC 3848, RFC 6531 4.3).

Of the HELO name only what the grammar allows is shown, so that it cannot forge a second field. There is a `for` when
there is one recipient; with more it would show blind copies to each other.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import lru_cache

from gsmtp.protocol.envelope import Envelope
from gsmtp.socket_address import address_literal

# RFC 5321 4.5.3.1.2: a domain has at most 255 octets. With a longer name the line could become too long.
_MAX_HELO = 255
_NOT_DOMAIN = re.compile(r"[^A-Za-z0-9._:\[\]\-\u00a1-\U0010ffff]")


def received(envelope: Envelope, hostname: str, now: float | None = None) -> bytes:
    """Return the field with its CRLF. `now`: seconds since the epoch, None for the present time."""
    session = envelope.session
    utf8 = "SMTPUTF8" in envelope.parameters
    helo = _NOT_DOMAIN.sub("?", session.helo[:_MAX_HELO]) or "unknown"
    if not utf8:
        helo = helo.encode("ascii", "replace").decode()
    literal = address_literal(session.peer)
    name = session.name if session.lookup is not None and session.lookup.ready else None
    if name is not None and literal:
        literal = f"{name.name if name.verified else 'unverified'} {literal}"
    # RFC 6531 4.3: UTF8SMTP and UTF8LMTP, with S and A behind.
    protocol = f"UTF8{session.protocol.removeprefix('E')}" if utf8 else session.protocol
    lines = [f"Received: from {helo} ({literal or 'unix socket'})", f"\tby {hostname} with {protocol} id {envelope.id}"]
    if len(envelope.recipients) == 1:
        lines.append(f"\tfor <{envelope.recipients[0].address}>")
    lines[-1] += ";"
    lines.append(f"\t{_date(int(time.time() if now is None else now))}\r\n")
    return "\r\n".join(lines).encode()


@lru_cache(1)
def _date(second: int) -> str:
    """Return the date of RFC 5322 3.3. It is cached because many messages come in one second."""
    return formatdate(second)
