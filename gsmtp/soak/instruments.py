"""In a worker: the log of accepted messages, and the socket that answers how much memory is in use.

A line is written to the log before the client is told 250; the soak empties the file. The unix socket answers each
line with a line of JSON. Neither needs more memory at the thousandth message than at the first.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import greenlet
import psutil
from gevent import socket
from gevent.libev.corecext import watcher

from gsmtp.handler import Handler, Message, Stream
from gsmtp.protocol.envelope import Envelope
from gsmtp.soak.mail import ID_FIELD

_NO_ID = b"none"


class Instruments:
    """The instruments of one worker. Its files are named by its pid, for another worker may follow in the same slot."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._log = -1
        self._worker: Any = None
        self._process = psutil.Process()

    def start(self, worker: Any) -> None:
        """Open the log and the socket. Raises OSError."""
        self._worker = worker
        self._process = psutil.Process()
        name = os.path.join(self._directory, str(os.getpid()))
        self._log = os.open(f"{name}.accepted", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{name}.probe")
        listener.listen()
        gevent.spawn(self._answer, listener)

    def record_accepted(self, id: bytes, digest: str) -> None:
        """Record a message that is about to be answered 250. Raises OSError."""
        os.write(self._log, b"%b %b\n" % (id, digest.encode()))

    def _answer(self, listener: socket.socket) -> None:
        # The soak alone connects, once at a time.
        while True:
            probe, _ = listener.accept()
            with probe, probe.makefile("rwb") as lines:
                for _ in lines:
                    lines.write(json.dumps(self.measure()).encode() + b"\n")
                    lines.flush()

    def measure(self) -> dict[str, float]:
        """Collect garbage and return what must not grow, by name.

        `accepted` is the number of connections since the start. Raises psutil.Error.
        """
        # The interpreter caches attribute names by their address, and gevent makes a new "stop" for each timer that
        # ends. Up to 4096 of them are kept, more and more slowly, and would look like growth.
        sys._clear_type_cache()
        gc.collect()
        gc.collect()
        # This comes first: the others allocate lists.
        blocks = sys.getallocatedblocks()
        heap = psutil.heap_info()
        objects = gc.get_objects()
        found = {
            "blocks": blocks,
            "objects": len(objects),
            "greenlets": sum(issubclass(type(each), greenlet.greenlet) for each in objects),
            "watchers": sum(issubclass(type(each), watcher) for each in objects),
            "heap": heap.heap_used + heap.mmap_used,
            "descriptors": self._process.num_fds(),
            "threads": self._process.num_threads(),
            "accepted": self._worker.scoreboard.slot(self._worker.slot).accepted,
        }
        del objects
        # The free memory that the heap keeps varies by megabytes with large mails, and is no growth.
        _trim()
        found["uss"] = self._process.memory_full_info().uss
        return found


def _trim() -> None:
    ctypes.CDLL(None).malloc_trim(0)


def instrumented(kind: type[Any], instruments: Instruments) -> type[Any]:
    """Return a subclass of a handler's class that records in `instruments` each message it accepts."""

    def on_start(self: Any, worker: Any) -> None:
        instruments.start(worker)
        inner = getattr(super(made, self), "on_start", None)
        if inner is not None:
            inner(worker)

    def on_message(self: Any, envelope: Envelope, message: Message) -> Any:
        answer = kind.on_message(self, envelope, message)
        if all(recipient.result is None for recipient in envelope.recipients):
            content = message.content
            end = content.find(b"\r\n")
            instruments.record_accepted(
                _id_in(content[:end]), hashlib.sha256(memoryview(content)[end + 2 :]).hexdigest()
            )
        return answer

    def on_data(self: Any, envelope: Envelope, stream: Stream) -> Any:
        reading = _HashedStream(stream)
        answer = kind.on_data(self, envelope, reading)
        while reading.read(1 << 20):  # what the handler has left unread
            pass
        if all(recipient.result is None for recipient in envelope.recipients):
            instruments.record_accepted(_id_in(reading.first), reading.hash.hexdigest())
        return answer

    hooks: dict[str, Callable[..., Any]] = {"on_message": on_message, "on_data": on_data}
    usual = {name: getattr(Handler, name) for name in hooks}
    taken = {name: hook for name, hook in hooks.items() if getattr(kind, name, usual[name]) is not usual[name]}
    made = type(kind.__name__, (kind,), {"on_start": on_start, **taken, "__module__": kind.__module__})
    return made


def _id_in(line: bytes) -> bytes:
    return line[len(ID_FIELD) :] if line.startswith(ID_FIELD) and b" " not in line[len(ID_FIELD) :] else _NO_ID


class _HashedStream:
    """The content on its way to the handler: `first` is its first line, `hash` is of what follows."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._head = b""
        self.first = b""
        self.hash = hashlib.sha256()

    @property
    def size(self) -> int:
        """See Stream."""
        return self._stream.size

    def read(self, size: int = -1) -> bytes:
        """See Stream."""
        data = self._stream.read(size)
        self._update(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        for data in self._stream:
            self._update(data)
            yield data

    def _update(self, data: bytes) -> None:
        if self.first:
            self.hash.update(data)
            return
        self._head += data
        line, end, rest = self._head.partition(b"\r\n")
        if end:
            self.first, self._head = line or _NO_ID, b""
            self.hash.update(rest)
