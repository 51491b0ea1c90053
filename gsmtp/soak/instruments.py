"""In the worker: the journal of what was acknowledged, and the gauge that says how much memory is in use.

The journal is a file to which a line is written before the client is told 250; the soak empties it. The gauge is a unix
socket that answers a line with a line of JSON. Both hold the same memory at the thousandth message as at the first.
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
    """Of one worker. Files are named after its pid: it may be followed by another in the same slot."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._journal = -1
        self._worker: Any = None
        self._process = psutil.Process()

    def start(self, worker: Any) -> None:
        """Open journal and gauge. OSError when that cannot be."""
        self._worker = worker
        self._process = psutil.Process()
        name = os.path.join(self._directory, str(os.getpid()))
        self._journal = os.open(f"{name}.journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{name}.gauge")
        listener.listen()
        gevent.spawn(self._answer, listener)

    def acknowledge(self, id: bytes, digest: str) -> None:
        """A message is about to be answered 250."""
        os.write(self._journal, b"%b %b\n" % (id, digest.encode()))

    def _answer(self, listener: socket.socket) -> None:
        # One asker at a time, so one greenlet: the soak.
        while True:
            asker, _ = listener.accept()
            with asker, asker.makefile("rwb") as lines:
                for _ in lines:
                    lines.write(json.dumps(self.measure()).encode() + b"\n")
                    lines.flush()

    def measure(self) -> dict[str, float]:
        """All that must not grow, after garbage was collected; also `accepted`, connections since the start."""
        # The interpreter caches attribute names by their address, and gevent makes a new "stop" for each timer that
        # ends. Up to 4096 of them are kept, more and more slowly, and would look like growth.
        sys._clear_type_cache()
        gc.collect()
        gc.collect()
        # The first, before the others make lists of their own.
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
        # What the heap keeps free for later comes and goes by megabytes with large mails, and is no growth.
        _trim()
        found["uss"] = self._process.memory_full_info().uss
        return found


def _trim() -> None:
    ctypes.CDLL(None).malloc_trim(0)


def instrumented(kind: type[Any], instruments: Instruments) -> type[Any]:
    """A subclass of a handler's class that tells the instruments what it has acknowledged."""

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
            instruments.acknowledge(_id_in(content[:end]), hashlib.sha256(memoryview(content)[end + 2 :]).hexdigest())
        return answer

    def on_data(self: Any, envelope: Envelope, stream: Stream) -> Any:
        reading = _Reading(stream)
        answer = kind.on_data(self, envelope, reading)
        while reading.read(1 << 20):  # what the handler did not care to read
            pass
        if all(recipient.result is None for recipient in envelope.recipients):
            instruments.acknowledge(_id_in(reading.first), reading.hash.hexdigest())
        return answer

    hooks: dict[str, Callable[..., Any]] = {"on_message": on_message, "on_data": on_data}
    usual = {name: getattr(Handler, name) for name in hooks}
    taken = {name: hook for name, hook in hooks.items() if getattr(kind, name, usual[name]) is not usual[name]}
    made = type(kind.__name__, (kind,), {"on_start": on_start, **taken, "__module__": kind.__module__})
    return made


def _id_in(line: bytes) -> bytes:
    return line[len(ID_FIELD) :] if line.startswith(ID_FIELD) and b" " not in line[len(ID_FIELD) :] else _NO_ID


class _Reading:
    """A stream on its way to the handler: its first line is kept, what follows is hashed."""

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
        self._see(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        for data in self._stream:
            self._see(data)
            yield data

    def _see(self, data: bytes) -> None:
        if self.first:
            self.hash.update(data)
            return
        self._head += data
        line, end, rest = self._head.partition(b"\r\n")
        if end:
            self.first, self._head = line or _NO_ID, b""
            self.hash.update(rest)
