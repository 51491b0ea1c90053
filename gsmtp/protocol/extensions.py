"""What EHLO's reply says (RFC 5321 4.1.1.1), for the end that reads it.

The receiving end's own table, and what it announces, is gsmtp/protocol/server/extensions.py. The parameters that
extensions bring to MAIL and RCPT are in parameters.py, for both ends.
"""

from __future__ import annotations

import re

from gsmtp.reply import Reply

# RFC 5321 4.1.1.1: ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-"), as esmtp-keyword in 4.1.2
KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*")


def parse_ehlo(reply: Reply) -> dict[str, tuple[str, ...]]:
    """Return the keywords of EHLO's reply in capitals, each with its parameters as they were sent.

    The first line names the server and is left out. A line that begins with no keyword is passed over, because a
    client can do without an extension. When a keyword comes again its parameters are added to the earlier ones. The
    form "AUTH=PLAIN LOGIN", which servers have for clients older than RFC 2554, counts as "AUTH PLAIN LOGIN".
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in reply.text.split("\n")[1:]:
        words = line.replace("\t", " ").split(" ")
        keyword, equals, more = words[0].upper().partition("=")
        if not KEYWORD.fullmatch(keyword) or (equals and keyword != "AUTH"):
            continue
        parameters = [word for word in (more, *words[1:]) if word]
        known = found.get(keyword, ())
        found[keyword] = (*known, *(word for word in dict.fromkeys(parameters) if word not in known))
    return found
