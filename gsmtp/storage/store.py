"""Durable files with group commit: when `Store.commit` returns, the files survive a power failure.

A message is safe when its bytes, its inode and its name in the directory are on the disk: write, fsync, rename,
fsync of the directory. Done one message after the other, two waits for the disk limit a process to about a
thousand a second, and done on the event loop they stop every session. So the sessions' greenlets hand their
files to a process beside this one (gsmtp/storage/writer.py), which takes all that wait as one batch. What is handed
over in one turn of the loop goes out as one, at the end of the turn.

What it promises: all or nothing per `commit`. After an error nothing of that call is left; other calls in the
same batch are not harmed. A greenlet that is killed while it waits changes nothing: the writer has the files, with
descriptors of its own, and finishes the commit or takes it back. A process killed in the middle leaves at most
temporary files, and never a file under its final name whose bytes are not complete on the disk. When a writer dies,
what it had is an OSError (EIO), though some of it may have been done, and the next commit starts another.

What it must not know: mail. Where it is weak: it trusts the caller that final names are unique (rename
replaces), and a disk that lies about flushes cannot be helped from here. It needs one event loop: `commit`
belongs to the thread that used the store first.
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
# Asked for, so that a batch is not bounded by the default of 200 KiB; the kernel gives what it allows.
_SEND_BUFFER = 1 << 20
_REAP_INTERVAL = 0.005  # seconds; it has closed its socket and is about to end


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
    """Writes files durably, by processes of its own that start when first needed."""

    def __init__(self, writers: int = 1, *, sync: bool = True, batch_files: int = 64) -> None:
        """`writers`: processes, and so batches under way at a time; the more, the smaller. `sync=False` leaves out
        every sync. `batch_files` bounds a batch, in commits, and so the time that its first waits for its last.
        Raises ValueError for a bound below 1.
        """
        if min(writers, batch_files) < 1:
            raise ValueError("writers and batch_files of a store must be at least 1")
        self._writers = writers
        self._arguments = [str(int(sync)), str(batch_files)]
        self._hub: Any = None
        self._lines: list[_Line] = []
        self._closed = False

    def start(self) -> None:
        """Start the first writer, and block the calling greenlet until it answers. Raises OSError when it cannot."""
        self._submit([], [])

    def commit(self, deliveries: Sequence[Delivery]) -> None:
        """Block the calling greenlet until every file is on the disk under its final name.

        Raises the OSError of the first thing that failed (ENOSPC, EDQUOT, EIO, ENOENT for a missing
        directory, ...); then nothing of this call is left behind. RuntimeError: the store is closed, or there is
        a mistake in what was given, such as NUL in a path.
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
        """Finish what is under way and end the writers; blocks the calling greenlet. Idempotent."""
        self._closed = True
        lines, self._lines = self._lines, []
        for line in lines:
            line.close()

    def _submit(self, files: list[writer.File], sources: list[int]) -> None:
        hub = gevent.get_hub()
        if self._closed:
            raise RuntimeError("the store is closed")
        if self._hub is None:
            self._hub = hub
        elif hub is not self._hub:
            raise RuntimeError("a store serves one event loop")
        self._line().submit(files, sources)

    def _line(self) -> _Line:
        """The writer with the least to do."""
        self._lines = [line for line in self._lines if not line.ended]
        line = min(self._lines, key=lambda line: line.waiting, default=None)
        if line is None or (line.waiting and len(self._lines) < self._writers):
            line = _Line(self._hub, self._arguments)
            self._lines.append(line)
        return line


class _Line:
    """A writer's process and the socket to it.

    It must not block the loop, whatever the writer does; and every wait ends, with an error when the process has ended.
    """

    def __init__(self, hub: Any, arguments: Sequence[str]) -> None:
        """`arguments` are the writer's own. Raises OSError when it cannot be started."""
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
        """Requests without an answer."""
        return len(self._waiting)

    def submit(self, files: list[writer.File], sources: Sequence[int]) -> None:
        """Hand over the files and block the calling greenlet until the answer. Raises what `Store.commit` does."""
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
        """Block the calling greenlet until what is under way is done and the process has ended."""
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
        """The process is gone, or cannot be talked to: then it finishes what it has, and ends."""
        self.ended = True
        self._reader.close()
        self._room.close()
        self._socket.close()
        for _, sources in self._outgoing:
            _close(sources)
        self._outgoing.clear()
        waiting, self._waiting = self._waiting, {}
        gevent.spawn(self._bury, error)
        for waiter in waiting.values():
            self._hub.loop.run_callback(waiter.switch, (errno.EIO, "the process that stores files ended", None))

    def _bury(self, error: OSError | None) -> None:
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
