"""Asks the instruments of each worker, and the master from outside, how much memory is in use."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import psutil

_PATIENCE = 30.0  # seconds: collecting the garbage of a large process takes long


class Gauge:
    """The instruments of one worker. Raises OSError when it is gone."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_PATIENCE)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rwb")

    def measure(self) -> dict[str, float]:
        """See Instruments.measure. ConnectionError."""
        self._lines.write(b"measure\n")
        self._lines.flush()
        line = self._lines.readline()
        if not line:
            raise ConnectionResetError("a worker is gone")
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        """The worker's side stays ready for another."""
        self._lines.close()
        self._socket.close()


def of_master(pid: int) -> dict[str, Any]:
    """What can be seen of the master: it runs no code of ours that could be asked."""
    process = psutil.Process(pid)
    return {
        "uss": process.memory_full_info().uss,
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
    }
