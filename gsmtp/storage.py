"""Durable files with group commit: when `Store.commit` returns, the files survive a power failure.

A message is safe when its bytes, its inode and its name in the directory are on the disk: write, fsync,
rename, fsync of the directory. Done one message after the other, two waits for the disk limit a process to
about a thousand a second, and done on the event loop they stop every session. So the sessions' greenlets hand
their files to a few native threads, and a thread takes all that wait: it writes them all, starts their
writeback, and only then syncs them, so that the file system answers for many with one flush; it renames them
all and syncs each directory once.

Two things decide the speed in a busy Python process. A thread needs the interpreter lock back after each
system call, and a running loop gives it up only after `sys.getswitchinterval()`: so one wake-up serves a
whole batch, and the store shortens the interval. And what is handed over in one turn of the loop should
become one batch: so the threads are woken at the end of the turn, not at the first file.

What it promises: all or nothing per `commit`. After an error nothing of that call is left; other calls in the
same batch are not harmed. A greenlet that is killed while it waits changes nothing: the thread owns the files
until it is done, with descriptors of its own, and finishes the commit or takes it back. A process killed in
the middle leaves at most temporary files, and never a file under its final name whose bytes are not complete
on the disk.

What it must not know: mail. Where it is weak: it trusts the caller that final names are unique (rename
replaces), and a disk that lies about flushes cannot be helped from here. It needs one event loop: `commit`
and `run` belong to the thread that used the store first.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import LockType
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import gevent
from gevent.hub import Waiter
from gevent.monkey import get_original

_start_thread = get_original("_thread", "start_new_thread")
_new_lock: Callable[[], LockType] = get_original("_thread", "allocate_lock")

_T = TypeVar("_T")
_COPY_BLOCK = 1 << 20
# Errors by which a kernel or file system says that it cannot copy between these two files; a copy by hand
# can.
_CANNOT_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Delivery:
    """One file to be made: written as `temporary`, renamed to `final`; both on one file system, directories
    existing.

    Its bytes are `prefix` and then `content`: bytes, or (descriptor, size in octets) of a file that is copied
    from its offset 0 by the kernel where it can. The descriptor is duplicated at `commit`, so the caller may
    close its own.
    """

    temporary: str
    final: str
    prefix: bytes
    content: bytes | tuple[int, int]

    @property
    def size(self) -> int:
        """Octets that the file will have."""
        return len(self.prefix) + (len(self.content) if isinstance(self.content, bytes) else self.content[1])


class Store:
    """Writes files durably, in native threads of its own that start when first needed."""

    def __init__(
        self,
        threads: int = 1,
        *,
        sync: bool = True,
        batch_files: int = 64,
        batch_bytes: int = 4 << 20,
        switch_interval: float = 0.0001,
    ) -> None:
        """`threads`: batches under way at a time; the more, the smaller. `sync=False` leaves out every sync.

        `batch_files` and `batch_bytes` bound a batch, and so the time that its first file waits for its last.
        `switch_interval`: `sys.setswitchinterval` (seconds) is lowered to it, for the whole process, when the
        first thread starts; at Python's 5 ms a loop at full load starves the threads (docs/storage.rst). 0
        leaves it alone. Raises ValueError for a bound below 1.
        """
        if min(threads, batch_files, batch_bytes) < 1 or switch_interval < 0:
            raise ValueError("threads, batch_files and batch_bytes of a store must be at least 1")
        self._threads = threads
        self._sync = sync
        self._batch_files = batch_files
        self._batch_bytes = batch_bytes
        self._switch_interval = switch_interval
        self._hub: Any = None
        self._watcher: Any = None
        self._closed = False
        self._started = 0
        self._under_way = 0
        self._gathered: list[_Job] = []  # handed over in this turn of the loop
        # Shared with the threads. Only single operations on deques, which are atomic: the loop never waits
        # for a lock.
        self._pending: deque[_Job] = deque()
        self._idle: deque[LockType] = deque()
        self._done: deque[_Job] = deque()

    def commit(self, deliveries: Sequence[Delivery]) -> None:
        """Block the calling greenlet until every file is on the disk under its final name.

        Raises the OSError of the first thing that failed (ENOSPC, EDQUOT, EIO, ENOENT for a missing
        directory, ...); then nothing of this call is left behind.
        """
        if deliveries:
            self._submit(_Commit(deliveries))

    def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call `function` in one of the threads, for short file work such as mkdir; its result or error."""
        call = _Call(function, arguments)
        self._submit(call)
        return call.result

    def close(self) -> None:
        """Finish what is under way and end the threads; blocks the calling greenlet. Idempotent."""
        if self._closed:
            return
        self._dispatch()
        self._closed = True
        for end in [_End() for _ in range(self._started)]:
            self._enqueue(end)
            end.waiter.get()
        if self._watcher is not None:
            self._watcher.close()

    def _submit(self, job: _Job) -> None:
        if self._closed:
            job.discard()
            raise RuntimeError("the store is closed")
        try:
            self._enqueue(job)
        except BaseException:
            job.discard()
            raise
        job.waiter.get()
        if job.error is not None:
            raise job.error

    # On the loop.

    def _enqueue(self, job: _Job) -> None:
        hub = gevent.get_hub()
        if self._hub is None:
            self._hub = hub
            self._watcher = hub.loop.async_()
        elif hub is not self._hub:
            raise RuntimeError("a store serves one event loop")
        job.waiter = Waiter(hub)
        if not self._under_way:
            self._watcher.start(
                self._hand_back
            )  # it keeps the loop alive, so only while there is something to wait for
        self._under_way += 1
        if not self._gathered:
            hub.loop.run_callback(self._dispatch)
        self._gathered.append(job)

    def _dispatch(self) -> None:
        if not self._gathered:
            return
        self._pending.extend(self._gathered)
        self._gathered.clear()
        if not self._wake_one() and self._started < self._threads and not self._closed:
            if not self._started and self._switch_interval:
                sys.setswitchinterval(min(sys.getswitchinterval(), self._switch_interval))
            self._started += 1
            _start_thread(self._work, ())

    def _hand_back(self) -> None:
        while self._done:
            job = self._done.popleft()
            self._under_way -= 1
            job.waiter.switch(None)
        if not self._under_way:
            self._watcher.stop()

    # In the threads.

    def _wake_one(self) -> bool:
        try:
            self._idle.pop().release()
        except IndexError:
            return False
        return True

    def _work(self) -> None:
        wake = _new_lock()
        wake.acquire()
        while True:
            batch = self._take()
            if not batch:
                self._idle.append(wake)
                if self._pending:  # it came between the look and the bed
                    try:
                        self._idle.remove(wake)
                        continue
                    except ValueError:
                        pass  # somebody is about to release the lock
                wake.acquire()
                continue
            if self._pending:
                self._wake_one()
            _process(batch, self._sync)
            last = isinstance(batch[-1], _End)
            self._done.extend(batch)
            self._watcher.send()
            if last:
                return

    def _take(self) -> list[_Job]:
        batch: list[_Job] = []
        size = 0
        while len(batch) < self._batch_files and size < self._batch_bytes:
            try:
                job = self._pending.popleft()
            except IndexError:
                break
            batch.append(job)
            size += job.size
            if isinstance(job, _End):
                break
        return batch


def _process(batch: Sequence[_Job], sync: bool) -> None:
    """The batch, step by step for all of its jobs. A job that fails is taken back and sits out the rest."""
    for job in batch:
        job.attempt(job.write, sync)
    # The last first: on a journalling file system the commit that it forces carries the others with it.
    for job in reversed(batch):
        job.attempt(job.settle, sync)
    for job in batch:
        job.attempt(job.publish)
    if sync:
        for directory in {directory for job in batch if job.error is None for directory in job.directories}:
            try:
                sync_directory(directory)
            except Exception as error:
                for job in batch:
                    if job.error is None and directory in job.directories:
                        job.fail(error)
    for job in batch:
        job.discard()


class _Job:
    """Something for a thread to do, in steps that a batch takes together. Errors are kept for the greenlet
    that waits."""

    waiter: Any
    error: BaseException | None = None
    size: int = 0
    directories: Iterable[str] = ()

    def attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        if self.error is None:
            try:
                step(*arguments)
            except BaseException as error:  # whatever it is, it belongs to the one who waits; the thread lives on
                self.fail(error)

    def fail(self, error: BaseException) -> None:
        self.error = error

    def write(self, sync: bool) -> None: ...

    def settle(self, sync: bool) -> None: ...

    def publish(self) -> None: ...

    def discard(self) -> None:
        """Give back the descriptors that the job still has. Idempotent."""


class _End(_Job):
    """Ends the thread that takes it."""


class _Call(_Job, Generic[_T]):
    result: _T

    def __init__(self, function: Callable[..., _T], arguments: Sequence[Any]) -> None:
        self._function = function
        self._arguments = arguments

    def write(self, sync: bool) -> None:
        self.result = self._function(*self._arguments)


class _Commit(_Job):
    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self._deliveries = deliveries
        self.size = sum(delivery.size for delivery in deliveries)
        self.directories = {os.path.dirname(delivery.final) or "." for delivery in deliveries}
        self._files: list[int] = []  # open, under their temporary names
        self._written: list[str] = []  # temporary names that are ours
        self._published: list[str] = []
        self._sources: dict[int, int] = {}  # the caller's descriptor -> ours
        try:
            for delivery in deliveries:
                if not isinstance(delivery.content, bytes) and delivery.content[0] not in self._sources:
                    self._sources[delivery.content[0]] = os.dup(delivery.content[0])
        except OSError:
            self.discard()
            raise

    def write(self, sync: bool) -> None:
        for delivery in self._deliveries:
            file = os.open(delivery.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            self._files.append(file)
            self._written.append(delivery.temporary)
            if isinstance(delivery.content, bytes):
                write_all(file, [delivery.prefix, delivery.content])
            else:
                write_all(file, [delivery.prefix])
                copy_file(self._sources[delivery.content[0]], file, delivery.content[1])
            if sync and hasattr(os, "posix_fadvise"):
                # On Linux this starts the writeback and does not wait, so the syncs that follow find it under
                # way. Pages that are dirty or being written are not dropped.
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    def settle(self, sync: bool) -> None:
        if sync:
            for file in self._files:
                os.fsync(file)
        while self._files:
            os.close(self._files.pop())

    def publish(self) -> None:
        for delivery in self._deliveries:
            os.rename(delivery.temporary, delivery.final)
            self._published.append(delivery.final)

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        self.discard()
        for name in (*self._published, *self._written[len(self._published) :]):
            try:
                os.unlink(name)
            except OSError:
                pass  # the error that brought us here is the one to tell

    def discard(self) -> None:
        for file in (*self._files, *self._sources.values()):
            try:
                os.close(file)
            except OSError:
                pass
        self._files.clear()
        self._sources.clear()


def sync_directory(path: str) -> None:
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
    """`size` octets from offset 0 of `source` to where `target` stands, by the kernel where it can. Blocks. OSError."""
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
