"""Raw readers over the content of a message: a spool's file, and a head in memory before a file.

Both are meant to be wrapped in io.BufferedReader. They have a module of their own because it is not compiled: from
Python 3.12 on, a class that mypyc compiles cannot be derived from io.RawIOBase. They must not know SMTP or trace.
"""

from __future__ import annotations

import io
import os
from typing import IO, Protocol


class _FileBacked(Protocol):
    size: int

    def fileno(self) -> int | None: ...


class SpoolReader(io.RawIOBase):
    """Read the file of a spool by offset, so that several readers do not disturb one another.

    `spool` has a `fileno()`, which raises ValueError once it is closed, and a `size`.
    """

    def __init__(self, spool: _FileBacked) -> None:
        self._spool = spool
        self._offset = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset and return it. ValueError if it is negative."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._spool.size}[whence]
        if base + offset < 0:
            raise ValueError("a negative offset")
        self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        """Return the offset of the next read."""
        return self._offset

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill `buffer` and return the number of octets, 0 at the end. OSError; ValueError if the spool is closed."""
        descriptor = self._spool.fileno()
        assert descriptor is not None
        count = os.preadv(descriptor, [buffer], self._offset)
        self._offset += count
        return count


class JoinedReader(io.RawIOBase):
    """Read `head`, then what is left of the file `rest`, which is closed with the reader."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._parts: list[IO[bytes]] = [io.BytesIO(head), rest]

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill `buffer` and return the number of octets, 0 at the end. Raises what reading `rest` raises."""
        view = memoryview(buffer)
        while self._parts:
            piece = self._parts[0].read(len(view))
            if piece:
                view[: len(piece)] = piece
                return len(piece)
            self._parts.pop(0).close()
        return 0

    def close(self) -> None:
        """Close both parts. Idempotent."""
        for part in self._parts:
            part.close()
        self._parts.clear()
        super().close()
