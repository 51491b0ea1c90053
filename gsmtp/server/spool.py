"""Message content while it arrives: in memory up to a limit, then in a file without a name.

Most mail is a few kilobytes and never touches a file: a write appends to a list. Content larger than `memory_limit`
goes to a file made with O_TMPFILE (or made and unlinked at once), so that a crash leaves no file. File work is never
done on the event loop: blocks of `BLOCK` octets are written in a thread pool of the spool's own (DNS lookups share
gevent's default pool and must not wait for a disk). One block may be written while the next is collected, so a spool
holds at most the memory limit or two blocks, whichever is more; a session that sends faster than the disk writes waits
in `write`.

The spool must not know SMTP, limits of size, or who writes. It is weak in two places: readers of a spool with a file
read on the loop, which is quick as long as the pages are in the kernel's cache; and the file is not synced, since it is
only on the way to a durable file, never the place where mail is kept (gsmtp/storage/).
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Sequence
from typing import Any, BinaryIO

from gevent.threadpool import ThreadPool

from gsmtp.server.readers import SpoolReader
from gsmtp.storage import write_all

MEMORY_LIMIT = 256 << 10
"""Default `memory_limit`: more than nine of ten mails, and a thousand at once are still only 256 MiB."""

BLOCK = 256 << 10
"""Octets written to the file at a time: few trips to the pool per megabyte, and little memory per session."""

# With so many pieces they are joined: an octet in a packet of its own must not cost fifty octets of memory, and writev
# takes 1,024.
_PIECES = 512
# Disks gain nothing from more; every session has at most one block under way.
_THREADS = 4
# Freeing the pages of a file this large takes longer than a trip to the pool.
_LARGE = 4 << 20

# A file system or kernel without O_TMPFILE says one of these.
_NO_TMPFILE = frozenset({errno.EISDIR, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT})

_pool: ThreadPool | None = None


def file_threads() -> ThreadPool:
    """Return the thread pool for the file work of all sessions; gevent's own pool looks names up."""
    global _pool
    if _pool is None:
        _pool = ThreadPool(_THREADS)
    return _pool


class _File:
    """A spool's file. `descriptor` is -1 before a thread has opened it, and after it was closed."""

    __slots__ = ("descriptor", "directory")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.descriptor = -1

    def write(self, pieces: Sequence[bytes]) -> OSError | None:
        """Write in a thread of the pool. Return the error: the pool would print one that is raised."""
        try:
            if self.descriptor < 0:
                self.descriptor = _open_nameless(self.directory)
            write_all(self.descriptor, pieces)
        except OSError as error:
            return error
        return None

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Spool:
    """The content of one message, in arrival order. Not for use by two greenlets at a time.

    `size` is the number of octets written so far.
    """

    __slots__ = (
        "_buffered",
        "_closed",
        "_directory",
        "_error",
        "_file",
        "_limit",
        "_pieces",
        "_writing",
        "size",
    )

    def __init__(self, directory: str | None = None, memory_limit: int = MEMORY_LIMIT) -> None:
        """`directory`: where a large message is kept, None for the system's temporary directory."""
        self.size = 0
        self._directory = directory
        self._limit = memory_limit
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._file: _File | None = None
        self._writing: Any = None  # AsyncResult of the block under way
        self._error: OSError | None = None
        self._closed = False

    def write(self, data: bytes) -> None:
        """Append `data`. May block the calling greenlet, never the loop.

        Raises OSError when the file could not be written (ENOSPC, EDQUOT, EIO), possibly for an earlier block: the file
        is gone then, and each further call raises the same error. Raises ValueError when the spool is closed.
        """
        self._pieces.append(data)
        size = len(data)
        self.size += size
        self._buffered += size
        if self._buffered > self._limit or len(self._pieces) >= _PIECES or self._closed or self._error is not None:
            self._make_room()

    def finish(self) -> None:
        """Wait until the file has all that was written. Raises as `write` does."""
        if self._file is not None or self._closed or self._error is not None:
            self._check()
            self._flush()
            self._wait()

    def close(self) -> None:
        """Free the memory and the file. Idempotent. The file stays open while a block is being written."""
        self._closed = True
        if self._file is None:
            self._pieces = []
            self._buffered = 0
        else:
            self._free()

    def open(self) -> BinaryIO:
        """Return a new reader from offset 0, valid while the spool is open.

        Call it after `finish`. Raises as `write` does.
        """
        self._check()
        if self._file is None:
            return io.BytesIO(self.bytes())
        return io.BufferedReader(SpoolReader(self), BLOCK)

    def bytes(self) -> bytes:
        """Return the whole content. Call it after `finish`. Raises as `write` does."""
        self._check()
        if self._file is None:
            if len(self._pieces) != 1:
                self._pieces = [b"".join(self._pieces)]
            return self._pieces[0]
        with self.open() as reader:
            return reader.read()

    def fileno(self) -> int | None:
        """Return the file's descriptor (its offset means nothing), None when all is in memory.

        Call it after `finish`. Raises as `write` does.
        """
        self._check()
        return None if self._file is None else self._file.descriptor

    def _check(self) -> None:
        if self._closed:
            raise ValueError("the spool is closed")
        if self._error is not None:
            raise self._error

    def _make_room(self) -> None:
        if self._closed or self._error is not None:
            self._pieces.clear()
            self._check()
        if self._buffered <= self._limit:
            self._pieces = [b"".join(self._pieces)]
            return
        if self._file is None:
            self._file = _File(self._directory or tempfile.gettempdir())
            self._limit = BLOCK
        self._flush()

    def _flush(self) -> None:
        self._wait()
        if self._pieces:
            assert self._file is not None
            pieces, self._pieces, self._buffered = self._pieces, [], 0
            self._writing = file_threads().spawn(self._file.write, pieces)

    def _wait(self) -> None:
        if self._writing is None:
            return
        self._error = self._writing.get()
        self._writing = None
        if self._error is not None:
            self._free()
            raise self._error

    def _free(self) -> None:
        self._pieces = []
        self._buffered = 0
        file, self._file = self._file, None
        writing, self._writing = self._writing, None
        if file is None:
            return
        if writing is not None and not writing.ready():
            # The thread has the descriptor's number: if it were closed now, the rest of the block could go to another
            # file that gets the same number.
            writing.rawlink(lambda _: file.close())
        elif self.size > _LARGE:
            file_threads().spawn(file.close)
        else:
            file.close()


def _open_nameless(directory: str) -> int:
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
    descriptor, name = tempfile.mkstemp(dir=directory)
    os.unlink(name)
    return descriptor
