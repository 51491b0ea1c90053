"""A PROXY header of either version, and the addresses in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from gsmtp.protocol.envelope import Address
from gsmtp.socket_address import host_text


class ProxyError(ValueError):
    """Raised for octets that are no PROXY header. The specification wants the connection dropped without a reply."""


class ProxyCommand(Enum):
    """LOCAL: the proxy connects for itself (a health check). PROXY: it connects for a client."""

    LOCAL = 0
    PROXY = 1


class ProxyFamily(Enum):
    """The kind of the client's connection. UNSPEC: it was not said, or is none that mail comes by (UDP)."""

    UNSPEC = "unspec"
    TCP4 = "tcp4"
    TCP6 = "tcp6"
    UNIX = "unix"


@dataclass(frozen=True, slots=True)
class ProxyTls:
    """TLS between client and proxy (2.2.6).

    `active` says that the client used TLS, `certificate` that it showed a certificate, in this connection or earlier
    in the TLS session. `verify` is 0 when the proxy found the certificate good; it is 0 without one too, so use
    `verified`. Texts that the proxy did not send are None; `common_name` is the client's. `other` has further TLVs as
    (type, value).
    """

    active: bool = False
    certificate_now: bool = False
    certificate_earlier: bool = False
    verify: int = 0
    version: str | None = None
    common_name: str | None = None
    cipher: str | None = None
    signature: str | None = None
    key: str | None = None
    other: tuple[tuple[int, bytes], ...] = ()

    @property
    def certificate(self) -> bool:
        """Whether the client showed a certificate."""
        return self.certificate_now or self.certificate_earlier

    @property
    def verified(self) -> bool:
        """Whether the client showed a certificate and the proxy found it good."""
        return self.active and self.certificate and self.verify == 0


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """One header.

    `source` and `destination` are socket addresses of the client's connection: ("192.0.2.1", 25),
    ("2001:db8::1", 25, 0, 0), or a path ("" unnamed, "\\0name" abstract). Both are None for LOCAL and for UNSPEC; the
    connection keeps its real addresses then. `checksum` says that there was a correct CRC32C. `other` has the TLVs that
    are not known here as (type, value), in their order and without NOOP.
    """

    version: int = 2
    command: ProxyCommand = ProxyCommand.PROXY
    family: ProxyFamily = ProxyFamily.UNSPEC
    source: Address = None
    destination: Address = None
    alpn: bytes | None = None
    authority: str | None = None
    unique_id: bytes | None = None
    tls: ProxyTls | None = None
    netns: str | None = None
    checksum: bool = False
    other: tuple[tuple[int, bytes], ...] = ()


def parse_ip(family: ProxyFamily, host: str | bytes) -> IPv4Address | IPv6Address:
    """Return an address of that family. Raises ValueError."""
    if family is ProxyFamily.TCP4:
        return IPv4Address(host)
    address = IPv6Address(host)
    if address.scope_id is not None:
        raise ValueError("zones are not for other machines")
    return address


def socket_address(address: IPv4Address | IPv6Address, port: int) -> tuple[Any, ...]:
    """Return the address in the form that the `socket` module uses."""
    if isinstance(address, IPv4Address):
        return str(address), port
    return host_text(address), port, 0, 0


def endpoints(family: ProxyFamily, header: ProxyHeader) -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    """Yield (address, port) of source and destination. Raises ValueError when they are not of that family."""
    for end in (header.source, header.destination):
        if not isinstance(end, tuple) or not 0 <= end[1] <= 65535:
            raise ValueError(f"not an address for {family.value}: {end!r}")
        yield parse_ip(family, end[0]), end[1]
