"""The PROXY protocol, versions 1 and 2: a load balancer describes its client before the client's first octet.

Grammar and numbers are those of haproxy's doc/proxy-protocol.txt ("the specification" below). `ProxyReader` promises
that the result does not depend on how the octets were sliced, that it keeps no more than `limit` octets and those fed
last, and that the octets after the header (an SMTP client's, a TLS ClientHello) are in `rest`. It must not know whom
to believe. Anyone can send such a header, so the caller asks for one only where the real peer is a trusted proxy, and
there always (section 5 forbids to guess whether one is there). Weak: the texts in a header (`authority`,
`tls.common_name`) may be what the client sent, unchecked by the proxy.
"""

from __future__ import annotations

from gsmtp.protocol.proxy import binary, line
from gsmtp.protocol.proxy.header import ProxyCommand, ProxyError, ProxyFamily, ProxyHeader, ProxyTls

__all__ = [
    "DEFAULT_LIMIT",
    "ProxyCommand",
    "ProxyError",
    "ProxyFamily",
    "ProxyHeader",
    "ProxyReader",
    "ProxyTls",
    "encode",
]

# Unix addresses take 216 octets, a host name and the details of TLS some 800, and a client's certificate, which newer
# proxies can add, two thousand. A longer header would fill memory before anything is known of the client.
DEFAULT_LIMIT = 4096


class ProxyReader:
    """Reads one header.

    `limit` is the greatest number of octets of a version 2 header. `rest` has the octets that followed the header.
    """

    __slots__ = ("_buffer", "_header", "_limit", "rest")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._buffer = b""
        self._limit = limit
        self._header: ProxyHeader | None = None
        self.rest = b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take octets. Return the header once it is whole, None when more octets are needed.

        Raises ProxyError as soon as the octets cannot become a header, and RuntimeError when it was returned already.
        """
        if self._header is not None:
            raise RuntimeError("the header has been read; what follows is not for this reader")
        self._buffer = buffer = self._buffer + data
        text = buffer[:1] == b"P"
        first = line.SIGNATURE if text else binary.SIGNATURE
        if buffer[: len(first)] != first[: len(buffer)]:
            raise ProxyError("no PROXY protocol signature")
        if len(buffer) < len(first):
            return None
        size = line.size(buffer) if text else binary.size(buffer, self._limit)
        if not 0 < size <= len(buffer):
            return None
        self._header = line.parse(buffer[:size]) if text else binary.parse(buffer[:size])
        self.rest, self._buffer = buffer[size:], b""
        return self._header


def encode(header: ProxyHeader) -> bytes:
    """Return the octets of a header. Raises ValueError when its version or the format has no room for it."""
    return line.encode(header) if header.version == 1 else binary.encode(header)
