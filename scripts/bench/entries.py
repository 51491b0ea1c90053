"""The table of entries. To compare one more server, name it here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .servers import Aiosmtpd, Entry, FsyncLoop, Gsmtp, GsmtpMaildir, NodeSmtpServer, SmtpSink
from .tlsservers import GeventSsl, GsmtpTls


def entries(checkouts: Sequence[Path], node_directory: Path) -> list[Entry]:
    """All entries, in the order of the table."""
    found: list[Entry] = [SmtpSink(), FsyncLoop(), GeventSsl("implicit")]
    found += [GeventSsl("implicit", files=True), GeventSsl("starttls")]
    for checkout in (None, *checkouts):
        found += [Gsmtp(checkout), GsmtpMaildir(checkout, workers=1), GsmtpMaildir(checkout, workers=2)]
        found += [GsmtpTls(checkout, "implicit"), GsmtpTls(checkout, "starttls")]
    return [*found, Aiosmtpd("asyncio"), Aiosmtpd("uvloop"), NodeSmtpServer(node_directory)]
