"""CRC-32C, which the standard library lacks. It is meant for the few hundred octets of a header, not for contents."""

from __future__ import annotations

from collections.abc import Iterator


def _table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


_TABLE = tuple(_table())


def crc32c(data: bytes) -> int:
    """Return the CRC-32 of `data` with Castagnoli's polynomial (RFC 4960 appendix B)."""
    crc, table = 0xFFFFFFFF, _TABLE
    for octet in data:
        crc = crc >> 8 ^ table[(crc ^ octet) & 255]
    return crc ^ 0xFFFFFFFF
