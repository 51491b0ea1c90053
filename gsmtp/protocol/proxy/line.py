"""Version 1 of the PROXY protocol: a line (section 2.1)."""

from __future__ import annotations

import re

from gsmtp.protocol.proxy.header import (
    ProxyCommand,
    ProxyError,
    ProxyFamily,
    ProxyHeader,
    endpoints,
    parse_ip,
    socket_address,
)

SIGNATURE = b"PROXY "
# The longest line is "PROXY UNKNOWN" with two full IPv6 addresses and ports, 107 octets with its CRLF.
_LIMIT = 107
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")

# PROXY SP (TCP4 / TCP6) SP source SP destination SP source-port SP destination-port CRLF, or PROXY SP UNKNOWN
# followed by anything that is to be ignored, CRLF


def size(buffer: bytes) -> int:
    """Return the number of octets of the line, 0 when its end has not come.

    Raises ProxyError for a line that is too long or does not end with CRLF.
    """
    end = buffer.find(b"\n") + 1
    if (end or len(buffer)) > _LIMIT or (not end and len(buffer) == _LIMIT):
        raise ProxyError(f"PROXY line longer than {_LIMIT} octets")
    if end and buffer[end - 2] != 13:
        raise ProxyError("PROXY line does not end with CRLF")
    return end


def parse(line: bytes) -> ProxyHeader:
    """Return the header in a whole line. Raises ProxyError."""
    try:
        words = line[:-2].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyError("PROXY line is not ASCII") from None
    if words[1] == "UNKNOWN":
        return ProxyHeader(1)
    if words[1] not in ("TCP4", "TCP6") or len(words) != 6:
        raise ProxyError("PROXY line of another form")
    hosts, ports = words[2:4], words[4:]
    if not all(_PORT.fullmatch(port) and int(port) <= 65535 for port in ports):
        raise ProxyError("PROXY line with a bad port")
    family = ProxyFamily.TCP4 if words[1] == "TCP4" else ProxyFamily.TCP6
    try:
        start, end = (
            socket_address(parse_ip(family, host), int(port)) for host, port in zip(hosts, ports, strict=True)
        )
    except ValueError:
        raise ProxyError(f"PROXY line with a bad address for {words[1]}") from None
    return ProxyHeader(1, ProxyCommand.PROXY, family, start, end)


def encode(header: ProxyHeader) -> bytes:
    """Return the line of a header. Raises ValueError when version 1 has no room for it."""
    if (
        header.command is not ProxyCommand.PROXY
        or header.family is ProxyFamily.UNIX
        or header != ProxyHeader(1, header.command, header.family, header.source, header.destination)
    ):
        raise ValueError("version 1 can carry TCP addresses and nothing else")
    if header.family is ProxyFamily.UNSPEC:
        return b"PROXY UNKNOWN\r\n"
    (source, from_port), (destination, to_port) = endpoints(header.family, header)
    return f"PROXY {header.family.name} {source} {destination} {from_port} {to_port}\r\n".encode()
