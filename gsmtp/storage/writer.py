"""A process that makes files durable, many with one flush. `gsmtp.storage.store.Store` starts it and talks to it.

Making a file durable takes six system calls. In a thread beside an event loop that never rests, each of them ends with
a fight for the interpreter lock, which cost more than the calls themselves (docs/storage.rst). In a process of its own
nobody else wants the lock.

It reads requests from a socket, takes all that have come as one batch, and answers the batch. It writes all files,
starts the writeback of all, and only then syncs them, so that each sync finds its work under way and, with a journal,
one commit answers for many; it renames them all and syncs each directory once.

A frame is its length in four octets and what `marshal` makes of a list. Requests are (number, files); a frame that has
descriptors beside it has one request. Answers are (number, None or the failure). A file is (temporary, final, prefix,
content); content is octets, or (index among the descriptors, size). A request is done wholly or not at all.

The process ends when the socket does, after the requests that came before. No signal reaches it (its parent blocks them
all for it, as a terminal or a service manager signals whole groups), so the requests that it has are finished. It knows
no mail, no gevent, and no other module of gsmtp, for it is started as a file, without packages.
"""

from __future__ import annotations

import array
import errno
import gc
import marshal
import os
import socket
import sys
from collections import deque

TYPE_CHECKING = False  # the module of types would be a megabyte more in each writer
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    File: TypeAlias = tuple[bytes, bytes, bytes, bytes | tuple[int, int]]
    # errno (None: it was no OSError), text, path
    Failure: TypeAlias = tuple[int | None, str, bytes | None]

LENGTH = 4
MOST_DESCRIPTORS = 253  # in one message: the kernel's SCM_MAX_FD
_READ = 1 << 18
_COPY_BLOCK = 1 << 20
# The content of a batch, about: its first request waits for its last.
_BATCH_BYTES = 4 << 20
# Errors by which a kernel or file system says that it cannot copy between these two files; a copy by hand can.
_CANNOT_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class Job:
    """Files that are made together or not at all, in steps that all jobs of a batch take together.

    The steps raise OSError.
    """

    def __init__(self, files: Sequence[File], sources: Sequence[int] = ()) -> None:
        """`sources` are open descriptors of files to copy from. The job closes them."""
        self.failure: Failure | None = None
        self.count = len(files)
        self.directories = {os.path.dirname(final) or b"." for _, final, _, _ in files}
        self.size = sum(len(prefix) + (len(c) if isinstance(c, bytes) else c[1]) for _, _, prefix, c in files)
        self._files = files
        self._sources = list(sources)
        self._open: list[int] = []
        self._written: list[bytes] = []  # temporary names that are ours
        self._published: list[bytes] = []

    def attempt(self, step: Callable[[bool], None], sync: bool) -> None:
        """Take a step if no step has failed so far. An error makes the job fail."""
        if self.failure is None:
            try:
                step(sync)
            except Exception as error:
                self.fail(error)

    def write(self, sync: bool) -> None:
        """Write the files under their temporary names. Raises OSError."""
        for temporary, _, prefix, content in self._files:
            file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            self._open.append(file)
            self._written.append(temporary)
            if isinstance(content, bytes):
                write_all(file, [prefix, content])
            else:
                write_all(file, [prefix])
                copy_file(self._sources[content[0]], file, content[1])

    def start_writeback(self, sync: bool) -> None:
        """Start writing them to the disk, so that the syncs that follow find their work under way. Raises OSError."""
        if sync and hasattr(os, "posix_fadvise"):
            # On Linux this does not wait. Pages that are dirty or being written are not dropped.
            for file in self._open:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    def settle(self, sync: bool) -> None:
        """Sync the files and close them. Raises OSError."""
        if sync:
            for file in self._open:
                os.fsync(file)
        while self._open:
            os.close(self._open.pop())

    def publish(self, sync: bool) -> None:
        """Give the files their final names. Raises OSError."""
        for temporary, final, _, _ in self._files:
            os.rename(temporary, final)
            self._published.append(final)

    def fail(self, error: Exception) -> None:
        """Record the error and remove the files."""
        if isinstance(error, OSError):
            name = error.filename
            self.failure = error.errno, error.strerror or str(error), name if isinstance(name, bytes) else None
        else:
            self.failure = None, f"{type(error).__name__}: {error}", None
        self.discard()
        for name in (*self._published, *self._written[len(self._published) :]):
            try:
                os.unlink(name)
            except OSError:
                pass  # the error that is reported is the first one

    def discard(self) -> None:
        """Close the descriptors that the job still has. Idempotent."""
        for file in (*self._open, *self._sources):
            try:
                os.close(file)
            except OSError:
                pass
        self._open.clear()
        self._sources.clear()


def process(batch: Sequence[Job], sync: bool) -> None:
    """Take each step for all jobs of the batch. A job that fails is taken back and takes no further step."""
    for job in batch:
        job.attempt(job.write, sync)
    # This waits until all are written: a file's blocks are chosen when its writeback starts, and so they lie side by
    # side. For one file it would be only one more request to the disk.
    if sum(job.count for job in batch) > 1:
        for job in batch:
            job.attempt(job.start_writeback, sync)
    # The last is synced first: on a journalling file system the commit that it forces carries the others with it.
    for job in reversed(batch):
        job.attempt(job.settle, sync)
    for job in batch:
        job.attempt(job.publish, sync)
    if sync:
        for directory in {directory for job in batch if job.failure is None for directory in job.directories}:
            try:
                sync_directory(directory)
            except Exception as error:
                for job in batch:
                    if job.failure is None and directory in job.directories:
                        job.fail(error)
    for job in batch:
        job.discard()


class Requests:
    """Reads requests from the socket, as jobs with their numbers."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._block = bytearray(_READ)  # the same for every read: new ones would be mapped and unmapped each time
        self._received = bytearray()
        self._sources: list[int] = []
        self._jobs: deque[tuple[int, Job]] = deque()

    def take(self, most: int) -> list[tuple[int, Job]]:
        """Return all waiting requests, at most `most` or some _BATCH_BYTES; block while there is none.

        The list is empty when the socket has ended. Raises OSError.
        """
        batch: list[tuple[int, Job]] = []
        size = 0
        while len(batch) < most and size < _BATCH_BYTES:
            if self._jobs:
                batch.append(self._jobs.popleft())
                size += batch[-1][1].size
            elif not self._read(0 if not batch else socket.MSG_DONTWAIT):
                break
        return batch

    def _read(self, flags: int) -> bool:
        space = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
        try:
            count, ancillary, found, _ = self._socket.recvmsg_into([self._block], space, flags)
        except BlockingIOError:
            return False
        for level, kind, octets in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                sources = array.array("i")
                sources.frombytes(octets[: len(octets) - len(octets) % sources.itemsize])
                self._sources.extend(sources)
        if found & socket.MSG_CTRUNC:
            # Descriptors were lost, so one request would get those of another.
            raise OSError(errno.EMFILE, "no room for the descriptors of what is to be copied")
        received = self._received
        received += memoryview(self._block)[:count]
        at = 0
        while len(received) - at >= LENGTH:
            end = at + LENGTH + int.from_bytes(received[at : at + LENGTH], "big")
            if end > len(received):
                break
            for number, files in marshal.loads(memoryview(received)[at + LENGTH : end]):
                wanted = 1 + max((content[0] for *_, content in files if isinstance(content, tuple)), default=-1)
                self._jobs.append((number, Job(files, self._sources[:wanted])))
                del self._sources[:wanted]
            at = end
        del received[:at]
        return count > 0


def serve(sock: socket.socket, sync: bool, batch_files: int) -> None:
    """Answer requests until the other side closes the socket. Raises OSError when that cannot go on."""
    requests = Requests(sock)
    while batch := requests.take(batch_files):
        process([job for _, job in batch], sync)
        sock.sendall(frame([(number, job.failure) for number, job in batch]))


def frame(content: Any) -> bytes:
    """Return a frame for the socket."""
    octets = marshal.dumps(content)
    return len(octets).to_bytes(LENGTH, "big") + octets


def sync_directory(path: str | bytes) -> None:
    """Make the names in the directory durable. Blocks. Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_all(file: int, pieces: Sequence[bytes]) -> None:
    """Write all the pieces, at most 1,024 (IOV_MAX), however many calls it takes. Blocks. Raises OSError."""
    written = os.writev(file, pieces)
    if written == sum(map(len, pieces)):
        return
    rest = memoryview(b"".join(pieces))[written:]
    while rest:
        rest = rest[os.write(file, rest) :]


def copy_file(source: int, target: int, size: int) -> None:
    """Copy `size` octets from offset 0 of `source` to the position of `target`, by the kernel where it can.

    Blocks. Raises OSError.
    """
    offset = 0
    by_kernel = hasattr(os, "copy_file_range")
    while offset < size:
        count = min(size - offset, _COPY_BLOCK if not by_kernel else size)
        if by_kernel:
            try:
                copied = os.copy_file_range(source, target, count, offset_src=offset)
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
                by_kernel = False
                continue
        else:
            block = os.pread(source, count, offset)
            write_all(target, [block])
            copied = len(block)
        if not copied:
            raise OSError(errno.EIO, "the content is shorter than its size says")
        offset += copied


def main(arguments: Sequence[str]) -> None:
    """Run the process.

    `arguments` are the socket's descriptor, 1 or 0 for whether to sync, and the commits in a batch. Raises OSError.
    """
    gc.disable()  # nothing here makes cycles
    descriptor, sync, batch_files = map(int, arguments)
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(True)  # the other side may have made the pair by gevent
    try:
        serve(sock, bool(sync), batch_files)
    except (BrokenPipeError, ConnectionResetError):
        pass  # nobody waits for the answer any more


if __name__ == "__main__":
    main(sys.argv[1:])
