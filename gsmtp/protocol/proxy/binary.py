"""Version 2 of the PROXY protocol: fixed fields and TLVs (section 2.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from gsmtp.protocol.envelope import Address
from gsmtp.protocol.proxy.crc32c import crc32c
from gsmtp.protocol.proxy.header import (
    ProxyCommand,
    ProxyError,
    ProxyFamily,
    ProxyHeader,
    ProxyTls,
    endpoints,
    parse_ip,
    socket_address,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
# Section 2.2.5
_UNIQUE_ID_LIMIT = 128

# Section 2.2: types of TLVs, and of those within SSL (2.2.6)
_ALPN, _AUTHORITY, _CRC32C, _NOOP, _UNIQUE_ID, _SSL, _NETNS = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x30
_TLS_TEXTS = {0x21: "version", 0x22: "common_name", 0x23: "cipher", 0x24: "signature", 0x25: "key"}
_KNOWN = {_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL, _NETNS}
_FAMILIES = {0: ProxyFamily.UNSPEC, 1: ProxyFamily.TCP4, 2: ProxyFamily.TCP6, 3: ProxyFamily.UNIX}
_FAMILY_NUMBERS = {family: number for number, family in _FAMILIES.items()}
_STREAM = 1
_ADDRESSES = {1: struct.Struct("!4s4sHH"), 2: struct.Struct("!16s16sHH"), 3: struct.Struct("!108s108s")}


def size(buffer: bytes, limit: int) -> int:
    """Return the number of octets of the whole header, 0 when it is not known yet.

    Raises ProxyError for another version, command or address family, and for more octets than `limit`.
    """
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
    octets = _FIXED + int.from_bytes(buffer[14:16], "big")
    if octets > limit:
        raise ProxyError(f"PROXY header of {octets} octets, more than {limit}")
    return octets


def parse(data: bytes) -> ProxyHeader:
    """Return the header in `data`, which is whole. Raises ProxyError."""
    number, transport = data[13] >> 4, data[13] & 15
    if not data[12] & 15:
        return ProxyHeader(2, ProxyCommand.LOCAL)
    if number == 0:
        return ProxyHeader(2)  # the length of its addresses is not known, so TLVs could begin anywhere
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
    return socket_address(parse_ip(family, source), from_port), socket_address(parse_ip(family, destination), to_port)


def _path(octets: bytes) -> str:
    # Abstract names (Linux) begin with NUL; a path ends at the first one.
    name = octets.rstrip(b"\0") if octets[:1] == b"\0" else octets.partition(b"\0")[0]
    return name.decode("utf-8", "surrogateescape")


def _text(value: bytes | None) -> str | None:
    # A certificate may hold any encoding, and a client any host name: not a reason to refuse it.
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _walk(data: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield (type, offset of the value, value) of each TLV from `at` on. Raises ProxyError."""
    while at < len(data):
        start = at + 3
        end = start + int.from_bytes(data[at + 1 : start], "big")
        if start > len(data) or end > len(data):
            raise ProxyError("PROXY TLV longer than its header")
        yield data[at], start, data[start:end]
        at = end


def _tlvs(data: bytes, at: int, wanted: set[int]) -> tuple[dict[int, bytes], tuple[tuple[int, bytes], ...]]:
    """Return the wanted TLVs by type, and all others but NOOP. Raises ProxyError."""
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


def encode(header: ProxyHeader) -> bytes:
    """Return the octets of a header. Raises ValueError when version 2 has no room for it."""
    if header.command is ProxyCommand.LOCAL or header.family is ProxyFamily.UNSPEC:
        if header != ProxyHeader(2, header.command):
            raise ValueError("nothing is read of a LOCAL header or one without addresses")
        return SIGNATURE + bytes([0x20 | header.command.value, 0, 0, 0])
    number = _FAMILY_NUMBERS[header.family]
    values: list[Any]
    if header.family is ProxyFamily.UNIX:
        values = [str(path).encode("utf-8", "surrogateescape") for path in (header.source, header.destination)]
        if max(map(len, values)) > 108:
            raise ValueError("a unix socket's path has at most 108 octets")
    else:
        (source, from_port), (destination, to_port) = endpoints(header.family, header)
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
    start = SIGNATURE + bytes([0x21, number << 4 | _STREAM])
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
