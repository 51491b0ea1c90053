"""The PROXY protocol, versions 1 and 2: what a load balancer says of its client before the first octet of that.

Grammar and numbers are those of haproxy's doc/proxy-protocol.txt ("the specification" below). `ProxyReader` takes
octets as they come; it promises that the result does not depend on how they were sliced, that it keeps no more than
`limit` octets and those fed last, and that whatever follows the header (an SMTP client's octets, a TLS ClientHello)
is kept in `rest`. It must not know whom to believe: anyone can send such a header, so the caller asks for one only
where the real peer is a trusted proxy, and there always (section 5 forbids to guess whether one is there).
Weak: the texts in a header (`authority`, `tls.common_name`) may be what the client sent, unchecked by the proxy.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from gsmtp.protocol.crc32c import crc32c
from gsmtp.protocol.envelope import Address

# Section 2.1: the longest line is "PROXY UNKNOWN" with two full IPv6 addresses and ports, 107 octets with its CRLF.
_LINE_LIMIT = 107
_SIGNATURE_1 = b"PROXY "
_SIGNATURE_2 = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
# Unix addresses take 216 octets, a host name and the details of TLS some 800; a client's certificate, which newer
# proxies can add, two thousand. What is longer fills memory before anything is known of the client.
DEFAULT_LIMIT = 4096

# Section 2.2.5
_UNIQUE_ID_LIMIT = 128
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")

# Section 2.2: types of TLVs, and of those within SSL (2.2.6)
_ALPN, _AUTHORITY, _CRC32C, _NOOP, _UNIQUE_ID, _SSL, _NETNS = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x30
_TLS_TEXTS = {0x21: "version", 0x22: "common_name", 0x23: "cipher", 0x24: "signature", 0x25: "key"}
_KNOWN = {_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL, _NETNS}


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


_FAMILIES = {0: ProxyFamily.UNSPEC, 1: ProxyFamily.TCP4, 2: ProxyFamily.TCP6, 3: ProxyFamily.UNIX}
_FAMILY_NUMBERS = {family: number for number, family in _FAMILIES.items()}
_STREAM = 1
_ADDRESSES = {1: struct.Struct("!4s4sHH"), 2: struct.Struct("!16s16sHH"), 3: struct.Struct("!108s108s")}


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

    def encode(self) -> bytes:
        """The octets that give this header. ValueError where its version or the format has no room for it."""
        return _encode_1(self) if self.version == 1 else _encode_2(self)


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
        first = _SIGNATURE_1 if buffer[:1] == b"P" else _SIGNATURE_2
        if buffer[: len(first)] != first[: len(buffer)]:
            raise ProxyError("no PROXY protocol signature")
        if len(buffer) < len(first):
            return None
        size = _size_1(buffer) if first is _SIGNATURE_1 else _size_2(buffer, self._limit)
        if not 0 < size <= len(buffer):
            return None
        self._header = _parse_1(buffer[:size]) if first is _SIGNATURE_1 else _parse_2(buffer[:size])
        self.rest, self._buffer = buffer[size:], b""
        return self._header


# Version 1: a line

# PROXY SP (TCP4 / TCP6) SP source SP destination SP source-port SP destination-port CRLF, or PROXY SP UNKNOWN
# followed by anything that is to be ignored, CRLF


def _size_1(buffer: bytes) -> int:
    """The octets of the line, 0 when its end has not come."""
    end = buffer.find(b"\n") + 1
    if (end or len(buffer)) > _LINE_LIMIT or (not end and len(buffer) == _LINE_LIMIT):
        raise ProxyError(f"PROXY line longer than {_LINE_LIMIT} octets")
    if end and buffer[end - 2] != 13:
        raise ProxyError("PROXY line does not end with CRLF")
    return end


def _parse_1(line: bytes) -> ProxyHeader:
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
        start, end = (_endpoint(_ip(family, host), int(port)) for host, port in zip(hosts, ports, strict=True))
    except ValueError:
        raise ProxyError(f"PROXY line with a bad address for {words[1]}") from None
    return ProxyHeader(1, ProxyCommand.PROXY, family, start, end)


def _ip(family: ProxyFamily, host: str | bytes) -> IPv4Address | IPv6Address:
    if family is ProxyFamily.TCP4:
        return IPv4Address(host)
    address = IPv6Address(host)
    if address.scope_id is not None:
        raise ValueError("zones are not for other machines")
    return address


def _endpoint(address: IPv4Address | IPv6Address, port: int) -> tuple[Any, ...]:
    if isinstance(address, IPv4Address):
        return str(address), port
    mapped = address.ipv4_mapped  # written as accept() does, which Python before 3.13 does not
    return (str(address) if mapped is None else f"::ffff:{mapped}"), port, 0, 0


def _encode_1(header: ProxyHeader) -> bytes:
    if (
        header.command is not ProxyCommand.PROXY
        or header.family is ProxyFamily.UNIX
        or header != ProxyHeader(1, header.command, header.family, header.source, header.destination)
    ):
        raise ValueError("version 1 can carry TCP addresses and nothing else")
    if header.family is ProxyFamily.UNSPEC:
        return b"PROXY UNKNOWN\r\n"
    (source, from_port), (destination, to_port) = _checked(header.family, header)
    return f"PROXY {header.family.name} {source} {destination} {from_port} {to_port}\r\n".encode()


def _checked(family: ProxyFamily, header: ProxyHeader) -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    """(address, port) of source and destination. ValueError when they are not of that family."""
    for end in (header.source, header.destination):
        if not isinstance(end, tuple) or not 0 <= end[1] <= 65535:
            raise ValueError(f"not an address for {family.value}: {end!r}")
        yield _ip(family, end[0]), end[1]


# Version 2: binary


def _size_2(buffer: bytes, limit: int) -> int:
    """The octets of the whole header, 0 when that is not known yet."""
    if len(buffer) > 12:
        if buffer[12] >> 4 != 2:
            raise ProxyError(f"PROXY protocol version {buffer[12] >> 4}")
        if buffer[12] & 15 > 1:
            raise ProxyError(f"PROXY command {buffer[12] & 15}")
    # A LOCAL header's family is to be ignored.
    if len(buffer) > 13 and buffer[12] & 15 and (buffer[13] >> 4 not in _FAMILIES or buffer[13] & 15 > 2):
        raise ProxyError(f"PROXY address family 0x{buffer[13]:02x}")
    if len(buffer) < _FIXED:
        return 0
    size = _FIXED + int.from_bytes(buffer[14:16], "big")
    if size > limit:
        raise ProxyError(f"PROXY header of {size} octets, more than {limit}")
    return size


def _parse_2(data: bytes) -> ProxyHeader:
    number, transport = data[13] >> 4, data[13] & 15
    if not data[12] & 15:
        return ProxyHeader(2, ProxyCommand.LOCAL)
    if number == 0:
        return ProxyHeader(2)  # how long its addresses are is not said, so neither where TLVs would begin
    form = _ADDRESSES[number]
    at = _FIXED + form.size
    if len(data) < at:
        raise ProxyError("PROXY header without room for its addresses")
    family, source, destination = _FAMILIES[number], None, None
    if transport == _STREAM:
        source, destination = _addresses(family, form.unpack_from(data, _FIXED))
    else:
        family = ProxyFamily.UNSPEC
    known, other = _tlvs(data, at, _KNOWN)
    unique_id = known.get(_UNIQUE_ID)
    if unique_id is not None and len(unique_id) > _UNIQUE_ID_LIMIT:
        raise ProxyError(f"PROXY unique id longer than {_UNIQUE_ID_LIMIT} octets")
    if _CRC32C in known:
        _verify(data, at, known[_CRC32C])
    return ProxyHeader(
        version=2,
        family=family,
        source=source,
        destination=destination,
        alpn=known.get(_ALPN),
        authority=_text(known.get(_AUTHORITY)),
        unique_id=unique_id,
        tls=_parse_tls(known[_SSL]) if _SSL in known else None,
        netns=_text(known.get(_NETNS)),
        checksum=_CRC32C in known,
        other=other,
    )


def _addresses(family: ProxyFamily, values: tuple[Any, ...]) -> tuple[Address, Address]:
    if family is ProxyFamily.UNIX:
        return _path(values[0]), _path(values[1])
    source, destination, from_port, to_port = values
    return _endpoint(_ip(family, source), from_port), _endpoint(_ip(family, destination), to_port)


def _path(octets: bytes) -> str:
    # Abstract names (Linux) begin with NUL; a path ends at the first one.
    name = octets.rstrip(b"\0") if octets[:1] == b"\0" else octets.partition(b"\0")[0]
    return name.decode("utf-8", "surrogateescape")


def _text(value: bytes | None) -> str | None:
    # A certificate may hold any encoding, and a client any host name: not a reason to refuse it.
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _walk(data: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """(type, offset of the value, value) of each TLV from `at` on."""
    while at < len(data):
        start = at + 3
        end = start + int.from_bytes(data[at + 1 : start], "big")
        if start > len(data) or end > len(data):
            raise ProxyError("PROXY TLV longer than its header")
        yield data[at], start, data[start:end]
        at = end


def _tlvs(data: bytes, at: int, wanted: set[int]) -> tuple[dict[int, bytes], tuple[tuple[int, bytes], ...]]:
    """The wanted TLVs by type, and all others but NOOP."""
    known: dict[int, bytes] = {}
    other: list[tuple[int, bytes]] = []
    for kind, _, value in _walk(data, at):
        if kind not in wanted:
            if kind != _NOOP:
                other.append((kind, value))
        elif kind in known:
            raise ProxyError(f"PROXY TLV 0x{kind:02x} given twice")  # which of them would be believed?
        else:
            known[kind] = value
    return known, tuple(other)


def _parse_tls(value: bytes) -> ProxyTls:
    if len(value) < 5:
        raise ProxyError("PROXY TLV for TLS too short")
    known, other = _tlvs(value, 5, set(_TLS_TEXTS))
    texts: dict[str, Any] = {name: _text(known.get(kind)) for kind, name in _TLS_TEXTS.items()}
    return ProxyTls(
        active=bool(value[0] & 1),
        certificate_now=bool(value[0] & 2),
        certificate_earlier=bool(value[0] & 4),
        verify=int.from_bytes(value[1:5], "big"),
        other=other,
        **texts,
    )


def _verify(data: bytes, at: int, given: bytes) -> None:
    if len(given) != 4:
        raise ProxyError("PROXY checksum is not four octets")
    start = next(start for kind, start, _ in _walk(data, at) if kind == _CRC32C)
    if crc32c(data[:start] + bytes(4) + data[start + 4 :]) != int.from_bytes(given, "big"):
        raise ProxyError("PROXY checksum is wrong")


def _encode_2(header: ProxyHeader) -> bytes:
    if header.command is ProxyCommand.LOCAL or header.family is ProxyFamily.UNSPEC:
        if header != ProxyHeader(2, header.command):
            raise ValueError("nothing is read of a LOCAL header or one without addresses")
        return _SIGNATURE_2 + bytes([0x20 | header.command.value, 0, 0, 0])
    number = _FAMILY_NUMBERS[header.family]
    values: list[Any]
    if header.family is ProxyFamily.UNIX:
        values = [str(path).encode("utf-8", "surrogateescape") for path in (header.source, header.destination)]
        if max(map(len, values)) > 108:
            raise ValueError("a unix socket's path has at most 108 octets")
    else:
        (source, from_port), (destination, to_port) = _checked(header.family, header)
        values = [source.packed, destination.packed, from_port, to_port]
    optional = {
        _ALPN: header.alpn,
        _AUTHORITY: _octets(header.authority),
        _UNIQUE_ID: header.unique_id,
        _SSL: None if header.tls is None else _encode_tls(header.tls),
        _NETNS: _octets(header.netns),
    }
    tlvs = [_tlv(kind, value) for kind, value in optional.items() if value is not None]
    tlvs += [_tlv(kind, value) for kind, value in header.other]
    if header.checksum:
        tlvs.append(_tlv(_CRC32C, bytes(4)))
    body = _ADDRESSES[number].pack(*values) + b"".join(tlvs)
    if len(body) > 65535:
        raise ValueError("a header has at most 65535 octets after the first 16")
    start = _SIGNATURE_2 + bytes([0x21, number << 4 | _STREAM])
    data = start + len(body).to_bytes(2, "big") + body
    return data[:-4] + crc32c(data).to_bytes(4, "big") if header.checksum else data


def _octets(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _tlv(kind: int, value: bytes) -> bytes:
    if len(value) > 65535:
        raise ValueError("a TLV has at most 65535 octets")
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def _encode_tls(tls: ProxyTls) -> bytes:
    flags = tls.active | tls.certificate_now << 1 | tls.certificate_earlier << 2
    texts: Mapping[int, bytes | None] = {kind: _octets(getattr(tls, name)) for kind, name in _TLS_TEXTS.items()}
    parts = [_tlv(kind, value) for kind, value in texts.items() if value is not None]
    parts += [_tlv(kind, value) for kind, value in tls.other]
    return bytes([flags]) + tls.verify.to_bytes(4, "big") + b"".join(parts)
