"""Durable files with group commit: when `Store.commit` returns, the files survive a power failure.

A message is safe when its bytes, its inode and its name in the directory are on the disk: write, fsync, rename, fsync
of the directory. Done one message after the other, two waits for the disk limit a process to about a thousand a second,
and done on the event loop they stop every session. So the sessions' greenlets hand their files to a process beside this
one (gsmtp/storage/writer.py), which takes all waiting files as one batch. The files of one turn of the loop are sent
together at its end.

A commit is all or nothing. After an error nothing of it is left, and other commits of the same batch are not affected.
When a greenlet is killed while it waits, the writer still finishes the commit or takes it back, since it has the files
and descriptors of its own. A process killed in the middle leaves at most temporary files, and never a file under its
final name whose bytes are not complete on the disk. When a writer dies, its commits raise OSError (EIO), though some
may have been done, and the next commit starts another writer.

This file does not know mail. Weaknesses: it trusts the caller that final names are unique (rename replaces), and it
cannot help against a disk that lies about flushes. It needs one event loop: `commit` belongs to the thread that used
the store first.
"""

from __future__ import annotations

import array
import contextlib
import errno
import itertools
import logging
import marshal
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import Waiter
from gevent.monkey import get_original

from gsmtp.storage import writer

logger = logging.getLogger("gsmtp.storage")

_Socket: type[socket.socket] = get_original("socket", "socket")
_waitpid = get_original("os", "waitpid")
_READ, _WRITE = 1, 2
# The size to ask for, since the default of 200 KiB would bound a batch. The kernel gives what it allows.
_SEND_BUFFER = 1 << 20
_REAP_INTERVAL = 0.005  # seconds between looks at a process that has closed its socket and is about to end


@dataclass(frozen=True, slots=True)
class Delivery:
    """One file to be made: it is written as `temporary` and renamed to `final`.

    Both paths must be on one file system, in existing directories. The file has `prefix` and then `content`: bytes, or
    (descriptor, size in octets) of a file, which is copied from its offset 0, by the kernel where it can. `commit`
    duplicates the descriptor, so the caller may close its own.
    """

    temporary: str
    final: str
    prefix: bytes
    content: bytes | tuple[int, int]

    @property
    def size(self) -> int:
        """The size of the file in octets."""
        return len(self.prefix) + (len(self.content) if isinstance(self.content, bytes) else self.content[1])


class Store:
    """Writes files durably, by processes of its own that are started when first needed."""

    def __init__(self, writers: int = 1, *, sync: bool = True, batch_files: int = 64) -> None:
        """Raises ValueError for a number below 1.

        `writers` is the number of processes, and so of batches at a time; more of them make smaller batches.
        `sync=False` leaves out every sync. `batch_files` limits the commits of a batch, and so how long its first one
        waits for its last.
        """
        if min(writers, batch_files) < 1:
            raise ValueError("writers and batch_files of a store must be at least 1")
        self._writers = writers
        self._arguments = [str(int(sync)), str(batch_files)]
        self._hub: Any = None
        self._processes: list[_WriterProcess] = []
        self._closed = False

    def start(self) -> None:
        """Start the first writer, and block the calling greenlet until it answers. Raises OSError when it cannot."""
        self._submit([], [])

    def commit(self, deliveries: Sequence[Delivery]) -> None:
        """Block the calling greenlet until every file is on the disk under its final name.

        Raises the first OSError that occurred (ENOSPC, EDQUOT, EIO, ENOENT for a missing directory, ...), ValueError
        for too many files to copy from, and RuntimeError when the store is closed or an argument is wrong, such as NUL
        in a path. After an error nothing of this commit is left.
        """
        if not deliveries:
            return
        sources: list[int] = []
        files: list[writer.File] = []
        for delivery in deliveries:
            content = delivery.content
            if not isinstance(content, bytes):
                descriptor, size = content
                if descriptor not in sources:
                    sources.append(descriptor)
                content = sources.index(descriptor), size
            temporary, final = os.fsencode(delivery.temporary), os.fsencode(delivery.final)
            files.append((temporary, final, delivery.prefix, content))
        if len(sources) > writer.MOST_DESCRIPTORS:
            raise ValueError(f"a commit copies from {writer.MOST_DESCRIPTORS} files at most")
        self._submit(files, sources)

    def close(self) -> None:
        """Finish the commits under way and end the writers. Blocks the calling greenlet. Idempotent."""
        self._closed = True
        processes, self._processes = self._processes, []
        for process in processes:
            process.close()

    def _submit(self, files: list[writer.File], sources: list[int]) -> None:
        hub = gevent.get_hub()
        if self._closed:
            raise RuntimeError("the store is closed")
        if self._hub is None:
            self._hub = hub
        elif hub is not self._hub:
            raise RuntimeError("a store serves one event loop")
        self._least_busy().submit(files, sources)

    def _least_busy(self) -> _WriterProcess:
        """Return the writer with the least to do."""
        self._processes = [process for process in self._processes if not process.ended]
        process = min(self._processes, key=lambda process: process.waiting, default=None)
        if process is None or (process.waiting and len(self._processes) < self._writers):
            process = _WriterProcess(self._hub, self._arguments)
            self._processes.append(process)
        return process


class _WriterProcess:
    """A writer's process and the socket to it.

    It does not block the loop, whatever the writer does. Every wait ends, with an error when the process has ended.
    """

    def __init__(self, hub: Any, arguments: Sequence[str]) -> None:
        """Start the process with the writer's `arguments`. Raises OSError when it cannot be started."""
        self.ended = False
        self._hub = hub
        self._numbers = itertools.count()
        self._waiting: dict[int, Any] = {}
        self._gathered: list[tuple[int, list[writer.File]]] = []  # handed over in this turn of the loop
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()  # octets, and descriptors that go with the first
        self._received = bytearray()
        self._closing: Event | None = None
        ours, its = socket.socketpair()
        try:
            os.set_inheritable(its.fileno(), True)
            command = [sys.executable, "-I", "-S", writer.__file__, str(its.fileno()), *arguments]
            self._pid = os.posix_spawn(command[0], command, os.environ, setsigmask=signal.valid_signals())
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        self._socket = _Socket(fileno=ours.detach())
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        # It is watched even when idle, to see the process end; but only a wait may keep the loop alive.
        self._reader = hub.loop.io(self._socket.fileno(), _READ, ref=False)
        self._reader.start(self._read)
        self._room = hub.loop.io(self._socket.fileno(), _WRITE)

    @property
    def waiting(self) -> int:
        """The number of requests without an answer."""
        return len(self._waiting)

    def submit(self, files: list[writer.File], sources: Sequence[int]) -> None:
        """Hand over the files and block the calling greenlet until the answer. Raises OSError, RuntimeError."""
        copies = _copies(sources)
        number = next(self._numbers)
        if not self._waiting:
            self._reader.ref = True
        self._waiting[number] = waiter = Waiter(self._hub)
        if copies:
            self._flush()
            self._queue([(number, files)], copies)
        else:
            if not self._gathered:
                self._hub.loop.run_callback(self._flush)
            self._gathered.append((number, files))
        failure: writer.Failure | None = waiter.get()
        if failure is None:
            return
        code, text, path = failure
        if code is None:
            raise RuntimeError(text)
        raise OSError(code, text, None if path is None else os.fsdecode(path))

    def close(self) -> None:
        """Block the calling greenlet until the requests are answered and the process has ended."""
        self._flush()
        if not self.ended:
            self._closing = Event()
            self._reader.ref = True
            self._hang_up()
            self._closing.wait()

    def _hang_up(self) -> None:
        if self._closing is not None and not self._outgoing:
            with contextlib.suppress(OSError):  # it has ended already
                self._socket.shutdown(socket.SHUT_WR)  # it answers what it has, and ends

    def _flush(self) -> None:
        if self._gathered and not self.ended:
            requests, self._gathered = self._gathered, []
            self._queue(requests, [])

    def _queue(self, requests: list[tuple[int, list[writer.File]]], sources: list[int]) -> None:
        self._outgoing.append((memoryview(writer.frame(requests)), sources))
        self._write()

    def _write(self) -> None:
        while self._outgoing:
            octets, sources = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", sources))] if sources else []
            try:
                sent = self._socket.sendmsg([octets], rights)
            except BlockingIOError:
                self._room.start(self._write)
                return
            except OSError as error:
                self._end(error)
                return
            _close(sources)
            self._outgoing.popleft()
            if sent < len(octets):
                self._outgoing.appendleft((octets[sent:], []))
        self._room.stop()
        self._hang_up()

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if not data:
            self._end(None)
            return
        received = self._received
        received += data
        while len(received) >= writer.LENGTH:
            end = writer.LENGTH + int.from_bytes(received[: writer.LENGTH], "big")
            if end > len(received):
                break
            answers = marshal.loads(received[writer.LENGTH : end])
            del received[:end]
            for number, failure in answers:
                waiter = self._waiting.pop(number)
                if not self._waiting and self._closing is None:
                    self._reader.ref = False
                waiter.switch(failure)

    def _end(self, error: OSError | None) -> None:
        """Give up a process that has ended, or that cannot be reached: that one finishes its requests and ends."""
        self.ended = True
        self._reader.close()
        self._room.close()
        self._socket.close()
        for _, sources in self._outgoing:
            _close(sources)
        self._outgoing.clear()
        waiting, self._waiting = self._waiting, {}
        gevent.spawn(self._reap, error)
        for waiter in waiting.values():
            self._hub.loop.run_callback(waiter.switch, (errno.EIO, "the process that stores files ended", None))

    def _reap(self, error: OSError | None) -> None:
        status: int | None = None
        with contextlib.suppress(ChildProcessError):  # somebody in this process reaps every child
            while not (ended := _waitpid(self._pid, os.WNOHANG))[0]:
                gevent.sleep(_REAP_INTERVAL)
            status = os.waitstatus_to_exitcode(ended[1])
        if self._closing is not None:
            self._closing.set()
        else:
            why = f": {error.strerror}" if error is not None else ""
            logger.error("the process %d that stores files ended, status %s%s", self._pid, status, why)


def _copies(descriptors: Sequence[int]) -> list[int]:
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))
    except OSError:
        _close(copies)
        raise
    return copies


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
