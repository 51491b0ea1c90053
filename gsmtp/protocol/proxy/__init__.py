"""The PROXY protocol, versions 1 and 2: what a load balancer says of its client before the first octet of that.

Grammar and numbers are those of haproxy's doc/proxy-protocol.txt ("the specification" below). `ProxyReader` takes
octets as they come; it promises that the result does not depend on how they were sliced, that it keeps no more than
`limit` octets and those fed last, and that whatever follows the header (an SMTP client's octets, a TLS ClientHello)
is kept in `rest`. It must not know whom to believe: anyone can send such a header, so the caller asks for one only
where the real peer is a trusted proxy, and there always (section 5 forbids to guess whether one is there).
Weak: the texts in a header (`authority`, `tls.common_name`) may be what the client sent, unchecked by the proxy.
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

# Unix addresses take 216 octets, a host name and the details of TLS some 800; a client's certificate, which newer
# proxies can add, two thousand. What is longer fills memory before anything is known of the client.
DEFAULT_LIMIT = 4096


class ProxyReader:
    """Reads one header. `limit`: octets of a version 2 header, all of it.

    `rest`: after the header, the octets that followed it.
    """

    __slots__ = ("_buffer", "_header", "_limit", "rest")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._buffer = b""
        self._limit = limit
        self._header: ProxyHeader | None = None
        self.rest = b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take octets; the header once it is whole, None when more is needed.

        Raises ProxyError as soon as it cannot become one, and RuntimeError when it has been given out already.
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
    """The octets that give this header. ValueError where its version or the format has no room for it."""
    return line.encode(header) if header.version == 1 else binary.encode(header)
