"""Asks for the memory in use: each worker through its instruments, the master from outside.

The soak's side of `instruments.py`. The master runs no code of the soak, so psutil measures it.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import psutil

_TIMEOUT = 30.0  # seconds: collecting the garbage of a large process takes long


class Probe:
    """A connection to the instruments of one worker."""

    def __init__(self, path: Path) -> None:
        """Connect to the socket of the instruments. Raises OSError when the worker is gone."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_TIMEOUT)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rwb")

    def measure(self) -> dict[str, float]:
        """Return what Instruments.measure returns. Raises OSError when the worker is gone or does not answer."""
        self._lines.write(b"measure\n")
        self._lines.flush()
        line = self._lines.readline()
        if not line:
            raise ConnectionResetError("a worker is gone")
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        """Disconnect. The worker can be asked again through another Probe."""
        self._lines.close()
        self._socket.close()


def measure_master(pid: int) -> dict[str, float]:
    """Return USS in octets, descriptors and threads of a process. Raises psutil.Error."""
    process = psutil.Process(pid)
    return {
        "uss": process.memory_full_info().uss,
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
    }
