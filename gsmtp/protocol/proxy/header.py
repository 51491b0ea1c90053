"""What a PROXY header says, whichever version it came in, and the addresses in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from gsmtp.protocol.envelope import Address
from gsmtp.socket_address import host_text


class ProxyError(ValueError):
    """This is no PROXY header. The specification wants the connection dropped, so there is no reply to give."""


class ProxyCommand(Enum):
    """LOCAL: the proxy speaks for itself (a health check). PROXY: for a client."""

    LOCAL = 0
    PROXY = 1


class ProxyFamily(Enum):
    """What the client's connection was; UNSPEC: not said, or nothing that mail comes by (UDP)."""

    UNSPEC = "unspec"
    TCP4 = "tcp4"
    TCP6 = "tcp6"
    UNIX = "unix"


@dataclass(frozen=True, slots=True)
class ProxyTls:
    """TLS between client and proxy (2.2.6).

    `active`: the client spoke TLS. `certificate`: it showed one, in this connection or earlier in the TLS session.
    `verify` is 0 when the proxy found that good; it is 0 without a certificate too, so ask `verified`. Texts are None
    where the proxy did not say; `common_name` is the client's. `other`: further TLVs as (type, value).
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
    ("2001:db8::1", 25, 0, 0), a path ("" unnamed, "\\0name" abstract). Both are None for LOCAL and for UNSPEC: then
    the real addresses of the connection are to be kept. `checksum`: a CRC32C was there, and right. `other`: TLVs that
    are not known here, as (type, value), in their order; NOOP is dropped.
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
    """An address of that family. Raises ValueError."""
    if family is ProxyFamily.TCP4:
        return IPv4Address(host)
    address = IPv6Address(host)
    if address.scope_id is not None:
        raise ValueError("zones are not for other machines")
    return address


def socket_address(address: IPv4Address | IPv6Address, port: int) -> tuple[Any, ...]:
    """As `socket` has it."""
    if isinstance(address, IPv4Address):
        return str(address), port
    return host_text(address), port, 0, 0


def endpoints(family: ProxyFamily, header: ProxyHeader) -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    """(address, port) of source and destination. Raises ValueError when they are not of that family."""
    for end in (header.source, header.destination):
        if not isinstance(end, tuple) or not 0 <= end[1] <= 65535:
            raise ValueError(f"not an address for {family.value}: {end!r}")
        yield parse_ip(family, end[0]), end[1]
