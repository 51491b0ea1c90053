"""Samples the server from outside while it runs: its processes by psutil, and the master's scoreboard through /proc.

Reading disturbs no worker. The number of samples is bounded however long the run lasts: when there are too many, every
other one is dropped and later ones are taken half as often. Only Linux has the scoreboard where it can be found.
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

_INTERVAL = 0.5  # seconds; workers update their rows no more often
_SAMPLES = 1200  # more than a plot has columns for


class ScoreboardReader:
    """Reads the scoreboard of a master."""

    def __init__(self, master: int) -> None:
        """Raises OSError when there is no scoreboard."""
        self._board = Scoreboard.open(_find(master))

    def workers(self) -> list[Slot]:
        """Return the rows of the workers that serve or drain."""
        return [slot for slot in self._board.read() if slot.state is not WorkerState.BOOTING]

    def sessions(self) -> int:
        """Return the number of open connections of all workers."""
        return sum(slot.sessions for slot in self._board.read())

    def messages(self) -> int:
        """Return how many messages all workers, also those that have ended, had accepted half a second ago."""
        return int(self._board.totals()["messages"])


def _find(master: int) -> Path:
    directory = Path(f"/proc/{master}/fd")
    for link in directory.iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith("/memfd:scoreboard"):
                return link
    raise FileNotFoundError(f"no scoreboard in {directory}")


class Sampler:
    """A thread that takes samples; `samples` has those that are kept."""

    def __init__(self, master: int, board: ScoreboardReader, on_sample: Callable[[Sample, int], None]) -> None:
        """Start the thread. It calls `on_sample` with each sample and the number of open sessions.

        `master` is the master's pid. Raises psutil.Error.
        """
        self._master = psutil.Process(master)
        self._board = board
        self._on_sample = on_sample
        self._stopping = threading.Event()
        self._began = time.monotonic()
        self._last = (self._began, 0)
        self._skipped = 0
        self._every = 1
        self.samples: list[Sample] = []
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling, and wait for the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL):
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
        self._on_sample(sample, sum(slot.sessions for slot in slots))
        self._last = now, messages
        self._skipped += 1
        if self._skipped >= self._every:
            self._skipped = 0
            self.samples.append(sample)
            if len(self.samples) > _SAMPLES:
                self.samples = self.samples[::2]
                self._every *= 2
