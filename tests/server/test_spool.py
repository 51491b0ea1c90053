"""gsmtp/server/spool.py: memory, files without names, disks that fill up."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import time
from pathlib import Path

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gsmtp.server.spool
from gsmtp.server.spool import BLOCK, Spool


def files() -> list[str]:
    """What is open: a list that says, when it differs, what was left."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(f"{descriptor} {os.readlink(f'/proc/self/fd/{descriptor}')}")
    return sorted(found)


def settled(expected: list[str]) -> list[str]:
    """What is open once it is as expected and stays so: a thread may yet have to open what it then closes."""
    deadline = time.monotonic() + 10
    calm = 0
    while calm < 10 and time.monotonic() < deadline:
        gevent.sleep(0.01)
        now = files()
        calm = calm + 1 if now == expected else 0
    return now


@pytest.fixture(autouse=True)
def warm(tmp_path: Path) -> None:
    """The pool's threads and descriptors stay with the process: have them before anything is counted."""
    spool = Spool(str(tmp_path), 0)
    spool.write(b"x")
    spool.finish()
    spool.close()


def test_small_content_stays_in_memory(tmp_path: Path) -> None:
    before = files()
    spool = Spool(str(tmp_path / "missing"), 100)
    for piece in (b"a" * 40, b"", b"b" * 60):
        spool.write(piece)
    spool.finish()
    assert spool.size == 100
    assert spool.fileno() is None
    assert spool.bytes() == b"a" * 40 + b"b" * 60
    assert spool.open().read() == spool.bytes()
    assert files() == before
    spool.close()


def test_nothing_written(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    spool.finish()
    assert (spool.size, spool.bytes(), spool.fileno()) == (0, b"", None)
    spool.close()


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(
        st.binary(max_size=40) | st.integers(0, 3 * BLOCK).map(lambda n: bytes([n % 251]) * n), max_size=12
    ),
    limit=st.sampled_from([0, 1, 50, 1000, BLOCK, 2 * BLOCK]),
)
def test_what_goes_in_comes_out(pieces: list[bytes], limit: int) -> None:
    before = files()
    spool = Spool(None, limit)
    for piece in pieces:
        spool.write(piece)
    spool.finish()
    whole = b"".join(pieces)
    assert spool.size == len(whole)
    assert (spool.fileno() is None) == (len(whole) <= limit)
    assert spool.bytes() == whole
    descriptor = spool.fileno()
    if descriptor is not None:
        assert os.fstat(descriptor).st_size == len(whole)
    spool.close()
    assert files() == before


def test_readers_are_independent(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 10)
    content = bytes(range(256)) * 3000
    spool.write(content)
    spool.finish()
    one, two = spool.open(), spool.open()
    assert one.read(5) == content[:5]
    assert two.read(700_000) == content[:700_000]
    assert one.read() == content[5:]
    assert one.seek(-3, io.SEEK_END) == len(content) - 3
    assert one.read() == content[-3:]
    assert two.tell() == 700_000
    with pytest.raises((OSError, ValueError)):
        one.seek(-1)
    spool.close()
    with pytest.raises(ValueError, match="closed"):
        two.seek(0)
        two.read()


def test_the_file_has_no_name(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 10)
    spool.write(b"x" * 1_000_000)
    assert os.listdir(tmp_path) == []
    spool.finish()
    assert os.listdir(tmp_path) == []
    spool.close()


def test_without_o_tmpfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    before = files()
    spool = Spool(str(tmp_path), 10)
    spool.write(b"x" * 1_000_000)
    spool.finish()
    assert os.listdir(tmp_path) == []
    assert spool.bytes() == b"x" * 1_000_000
    spool.close()
    assert files() == before


def test_single_octets_do_not_pile_up() -> None:
    spool = Spool(None)
    for _ in range(20_000):
        spool.write(b"x")
    assert len(spool._pieces) < 600
    spool.finish()
    assert spool.bytes() == b"x" * 20_000
    spool.close()


@pytest.mark.parametrize("limit", [0, 1000])
def test_close_is_idempotent_and_final(tmp_path: Path, limit: int) -> None:
    before = files()
    spool = Spool(str(tmp_path), limit)
    spool.write(b"some bytes")
    spool.close()
    spool.close()
    for use in (lambda: spool.write(b"x"), spool.finish, spool.open, spool.bytes, spool.fileno):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert settled(before) == before


def test_a_large_file_is_closed_off_the_loop(tmp_path: Path) -> None:
    before = files()
    spool = Spool(str(tmp_path), 0)
    for _ in range(10):
        spool.write(b"x" * 1_000_000)
    spool.finish()
    spool.close()
    assert settled(before) == before


def test_a_killed_writer(tmp_path: Path) -> None:
    before = files()

    def write() -> None:
        spool = Spool(str(tmp_path), 0)
        try:
            while True:
                spool.write(b"x" * BLOCK)
        finally:
            spool.close()

    writers = [gevent.spawn(write) for _ in range(5)]
    gevent.sleep(0.05)
    gevent.killall(writers)
    assert settled(before) == before


def test_a_missing_directory(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "missing"), 10)
    with pytest.raises(FileNotFoundError):
        spool.write(b"x" * 20)
        spool.finish()
    spool.close()


def test_a_full_disk(small_disk: Path) -> None:
    before = files()
    spool = Spool(str(small_disk), 1000)
    with pytest.raises(OSError, match="No space left") as caught:
        for _ in range(40):
            spool.write(b"x" * 50_000)
        spool.finish()
    assert caught.value.errno == errno.ENOSPC
    assert files() == before
    assert os.listdir(small_disk) == []
    assert os.statvfs(small_disk).f_bfree == os.statvfs(small_disk).f_blocks
    for use in (lambda: spool.write(b"more"), spool.finish, spool.bytes):
        with pytest.raises(OSError, match="No space left"):
            use()
    spool.close()


def test_a_full_disk_at_the_last_block(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 900_000)
    spool = Spool(str(small_disk), 1000)
    spool.write(b"x" * 200_000)  # collected, not yet written
    with pytest.raises(OSError, match="No space left"):
        spool.finish()
    spool.close()
    assert os.listdir(small_disk) == ["ballast"]


def test_a_file_size_limit(tmp_path: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    spool = Spool(str(tmp_path), 1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, old[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            for _ in range(10):
                spool.write(b"x" * 100_000)
            spool.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    spool.close()


def test_a_slow_writer_blocks_its_greenlet_and_not_the_loop(tmp_path: Path) -> None:
    beats = 0

    def beat() -> None:
        nonlocal beats
        while True:
            gevent.sleep(0)
            beats += 1

    heart = gevent.spawn(beat)
    gevent.sleep(0)
    spool = Spool(str(tmp_path), 0)
    before = beats
    for _ in range(20):
        spool.write(b"x" * (BLOCK + 1))
    spool.finish()
    assert beats - before > 20
    heart.kill()
    spool.close()


def test_cost(tmp_path: Path) -> None:
    """Processor time, ten times what was measured: to catch a file or a thread in the way of small mail."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    data = b"x" * 4096
    before = used()
    for _ in range(2000):
        spool = Spool(str(tmp_path))
        spool.write(data)
        spool.finish()
        spool.close()
    assert (used() - before) / 2000 < 20e-6
    data = b"x" * 65536
    before = used()
    for _ in range(20):
        spool = Spool(str(tmp_path))
        for _ in range(16):
            spool.write(data)
        spool.finish()
        spool.close()
    assert (used() - before) / 20 < 10e-3
    assert gsmtp.server.spool.MEMORY_LIMIT == 256 * 1024
