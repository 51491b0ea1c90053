"""What is seen of the server from outside while it runs: psutil, and the master's scoreboard through /proc.

Promises: reading disturbs no worker. The number of samples is bounded, whatever the run lasts: when there are too many,
every other one goes and the next ones come half as often. Linux alone has the scoreboard in a place where it is found.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from gsmtp_workers.scoreboard import Scoreboard, Slot, WorkerState

from gsmtp.soak.plot import Sample

_INTERVAL = 0.5  # the beat of a worker: its row says nothing new more often
_SAMPLES = 1200  # more than a plot has columns for


class Board:
    """The scoreboard of a master, to read."""

    def __init__(self, master: int) -> None:
        """Raises OSError when it cannot be had."""
        self._board = Scoreboard.open(_find(master))

    def workers(self) -> list[Slot]:
        """Those that serve or drain."""
        return [slot for slot in self._board.read() if slot.state is not WorkerState.BOOTING]

    def sessions(self) -> int:
        """Open connections, of all workers."""
        return sum(slot.sessions for slot in self._board.read())

    def messages(self) -> int:
        """Accepted by all workers that ever were, up to half a second ago."""
        return int(self._board.totals()["messages"])


def _find(master: int) -> Path:
    directory = Path(f"/proc/{master}/fd")
    for link in directory.iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith("/memfd:scoreboard"):
                return link
    raise FileNotFoundError(f"no scoreboard in {directory}")


class Watch:
    """A thread that samples. `show` is told of each sample, and of the sessions that are open."""

    def __init__(self, master: int, board: Board, show: Callable[[Sample, int], None]) -> None:
        self._master = psutil.Process(master)
        self._board = board
        self._show = show
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._last = (self._began, 0)
        self._skipped = 0
        self._every = 1
        self.samples: list[Sample] = []
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sample no more."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL):
            with contextlib.suppress(psutil.Error):
                self._sample()

    def _sample(self) -> None:
        now, messages = time.monotonic(), self._board.messages()
        slots = self._board.workers()
        memory, lag = {}, {}
        for slot in slots:
            name = f"worker {slot.slot}"
            with contextlib.suppress(psutil.NoSuchProcess):
                memory[name] = float(psutil.Process(slot.pid).memory_full_info().uss)
                lag[name] = slot.lag
        memory["master"] = float(self._master.memory_full_info().uss)
        then, before = self._last
        rate = (messages - before) / (now - then)
        sample = Sample(now - self._began, messages, rate, memory, lag)
        self._show(sample, sum(slot.sessions for slot in slots))
        self._last = now, messages
        self._skipped += 1
        if self._skipped >= self._every:
            self._skipped = 0
            self.samples.append(sample)
            if len(self.samples) > _SAMPLES:
                self.samples = self.samples[::2]
                self._every *= 2
