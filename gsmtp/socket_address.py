"""Socket addresses as text, and text as socket addresses.

A socket address is what `socket.accept` returns: ("192.0.2.1", 25), ("2001:db8::1", 25, 0, 0), or a unix socket's path
("" for an unnamed one, bytes for an abstract name). A listener on [::] sees IPv4 clients as ::ffff:192.0.2.1; wherever
an address is compared, counted or shown, it is the IPv4 address.

This module opens no socket and looks nothing up, so the protocol may import it. It does not know who may do what from
which address: see gsmtp.net.networks.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

_WITH_PORT = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<host>[^\[\]:/]*)):(?P<port>[0-9]{1,5})")
_NAME = re.compile(r"[^\[\]:/\s]+")

IPAddress = IPv4Address | IPv6Address
SocketAddress = tuple[Any, ...] | str | bytes | None


def unmap(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv4-mapped IPv6 address stands for, and any other address as it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def parse_host(host: str) -> IPAddress | None:
    """Return the IP address written in `host`, unmapped and without its zone, or None if it is not an address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return unmap(address)


def host_text(address: IPAddress) -> str:
    """Return the host part that `socket.accept` would give for this address.

    An IPv4-mapped address is written ::ffff:192.0.2.1, which `str` does only from Python 3.13 on.
    """
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address) if mapped is None else f"::ffff:{mapped}"


def format_address(address: SocketAddress) -> str:
    """Return "192.0.2.1:25", "[2001:db8::1]:25", a unix socket's path, or "@name" for an abstract one.

    `parse_address` reads all of these but the last.
    """
    if isinstance(address, tuple) and len(address) > 1:
        host = str(address[0])
        return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
    if isinstance(address, bytes):
        return f"@{os.fsdecode(address[1:])}" if address.startswith(b"\0") else os.fsdecode(address)
    return address if isinstance(address, str) else ""


def parse_address(text: str, default_port: int | None = None) -> tuple[str, int] | str:
    """Return (host, port) for "host:port", "[host]:port" or ":port", and the path for one that begins with a slash.

    With a `default_port` the port may be left out, and then an IPv6 address has no brackets. The host is not checked;
    it may be a name. Raises ValueError when the text has none of these forms or the port is not within 0 to 65535.
    """
    if text.startswith("/"):
        return text
    match = _WITH_PORT.fullmatch(text)
    if match is not None and int(match["port"]) <= 65535:
        return match["bracketed"] or match["host"] or "", int(match["port"])
    if default_port is not None and (_NAME.fullmatch(text) or parse_host(text) is not None):
        return text, default_port
    raise ValueError(f"not host:port, [host]:port or a path: {text!r}")


def address_literal(peer: SocketAddress) -> str:
    """Return the address literal (RFC 5321 4.1.3) of a socket address, or "" for a unix socket.

    It is called for each message, so it works on the text; `accept` writes an address in one way only.
    """
    if not isinstance(peer, tuple) or not peer:
        return ""
    host = str(peer[0]).partition("%")[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return f"[IPv6:{host}]" if ":" in host else f"[{host}]"


def log_text(peer: object) -> str:
    """Return a client's socket address as log lines show it: "[192.0.2.1]:25", "[IPv6:2001:db8::1]:25", "unix"."""
    if isinstance(peer, tuple) and len(peer) > 1:
        return f"{address_literal(peer)}:{peer[1]}"
    return "unix"
