"""gsmtp/storage.py against real files, real full disks and real kills."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import psutil
import pytest

import gsmtp.storage
from gsmtp.storage import Delivery, Store


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return make_box(tmp_path / "box")


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.close()


def make_box(path: Path) -> Path:
    for name in ("tmp", "new"):
        (path / name).mkdir(parents=True)
    return path


def delivery(box: Path, name: str, content: bytes | tuple[int, int] = b"content", prefix: bytes = b"") -> Delivery:
    return Delivery(f"{box}/tmp/{name}", f"{box}/new/{name}", prefix, content)


def names(box: Path) -> tuple[set[str], set[str]]:
    return set(os.listdir(box / "tmp")), set(os.listdir(box / "new"))


def source(data: bytes) -> int:
    file = os.memfd_create("source")
    os.write(file, data)
    return file


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("content", [b"", b"one line\r\n", b"\0" * 3_000_000], ids=len)
def test_bytes_are_stored(box: Path, sync: bool, content: bytes) -> None:
    store = Store(sync=sync)
    store.commit([delivery(box, "a", content, b"Header: x\r\n")])
    store.close()
    assert names(box) == (set(), {"a"})
    assert (box / "new/a").read_bytes() == b"Header: x\r\n" + content
    assert (box / "new/a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
@pytest.mark.parametrize("same_file_system", [True, False])
def test_a_file_is_copied(box: Path, store: Store, size: int, same_file_system: bool) -> None:
    data = random.Random(size).randbytes(size)
    if same_file_system:
        (box / "source").write_bytes(data)
        file = os.open(box / "source", os.O_RDWR)
    else:
        file = source(data)
    os.lseek(file, size // 2, os.SEEK_SET)  # its own offset means nothing
    store.commit([delivery(box, "a", (file, size), b"P"), delivery(box, "b", (file, size), b"Q")])
    os.close(file)
    assert (box / "new/a").read_bytes() == b"P" + data
    assert (box / "new/b").read_bytes() == b"Q" + data


def test_a_source_that_is_too_short_fails(box: Path, store: Store) -> None:
    file = source(b"short")
    with pytest.raises(OSError, match="shorter") as caught:
        store.commit([delivery(box, "a", (file, 6))])
    os.close(file)
    assert caught.value.errno == errno.EIO
    assert names(box) == (set(), set())


@pytest.mark.parametrize("broken", ["tmp", "new"])
def test_all_or_nothing(box: Path, store: Store, broken: str, tmp_path: Path) -> None:
    other = make_box(tmp_path / "other")
    (other / broken).rmdir()
    with pytest.raises(FileNotFoundError):
        store.commit([delivery(box, "a"), delivery(other, "b"), delivery(box, "c")])
    assert names(box) == (set(), set())
    assert not any(path.is_file() for path in other.rglob("*"))


def test_a_failure_does_not_touch_others_of_the_batch(box: Path, store: Store, tmp_path: Path) -> None:
    def commit(number: int) -> bool:
        where = box if number % 3 else tmp_path / "missing"
        try:
            store.commit([delivery(where, str(number), b"x" * number)])
        except FileNotFoundError:
            return False
        return True

    tasks = [gevent.spawn(commit, number) for number in range(30)]
    gevent.joinall(tasks, raise_error=True)
    assert [task.value for task in tasks] == [bool(number % 3) for number in range(30)]
    assert names(box) == (set(), {str(number) for number in range(30) if number % 3})


def test_a_temporary_file_of_somebody_else_is_left_alone(box: Path, store: Store) -> None:
    (box / "tmp/a").write_bytes(b"not ours")
    with pytest.raises(FileExistsError):
        store.commit([delivery(box, "first"), delivery(box, "a")])
    assert names(box) == ({"a"}, set())
    assert (box / "tmp/a").read_bytes() == b"not ours"


def test_what_is_not_an_oserror_reaches_the_caller_and_the_thread_lives_on(box: Path, store: Store) -> None:
    with pytest.raises(ValueError, match="null"):
        store.commit([delivery(box, "nul\0")])
    store.commit([delivery(box, "a")])
    assert names(box) == (set(), {"a"})


def test_many_share_the_syncs(box: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = gsmtp.storage.sync_directory

    def sync_directory(path: str) -> None:
        synced.append(path)
        real(path)

    monkeypatch.setattr(gsmtp.storage, "sync_directory", sync_directory)
    beats: list[float] = []

    def beat() -> None:
        while True:
            before = time.monotonic()
            gevent.sleep(0.001)
            beats.append(time.monotonic() - before)

    heart = gevent.spawn(beat)
    gevent.sleep(0)
    tasks = [gevent.spawn(store.commit, [delivery(box, str(n), bytes([n]) * 4096)]) for n in range(200)]
    gevent.joinall(tasks, raise_error=True)
    heart.kill()
    assert names(box) == (set(), {str(number) for number in range(200)})
    assert all((box / f"new/{n}").read_bytes() == bytes([n]) * 4096 for n in range(200))
    assert 1 <= len(synced) <= 20
    # On the loop, the first commit alone would have stood it for some 400 syncs.
    assert beats
    assert max(beats) < 0.5


def test_the_order_of_what_makes_a_file_durable(box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is synced before it is renamed, its directory after that, and only then does commit return."""
    other = make_box(tmp_path / "other")
    done: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def noting_fsync(file: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file}")
        size = os.fstat(file).st_size
        fsync(file)
        done.append(("sync", path if os.path.isdir(path) else f"{path} {size}"))

    def noting_rename(source: str, target: str) -> None:
        rename(source, target)
        done.append(("rename", source))

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    store = Store()

    def commit(number: int) -> None:
        store.commit([delivery(each, str(number), b"12345", b"head") for each in (box, other)])
        done.append(("returned", str(number)))

    gevent.joinall([gevent.spawn(commit, number) for number in range(5)], raise_error=True)
    store.close()
    for number in range(5):
        returned = done.index(("returned", str(number)))
        for each in (box, other):
            file = f"{each}/tmp/{number}"
            synced, renamed = done.index(("sync", f"{file} 9")), done.index(("rename", file))
            directory = max(at for at, what in enumerate(done[:returned]) if what == ("sync", f"{each}/new"))
            assert synced < renamed < directory < returned


def test_a_killed_greenlet_leaves_the_commit_to_the_thread(box: Path, store: Store) -> None:
    data = random.Random(1).randbytes(2_000_000)
    file = source(data)
    task = gevent.spawn(store.commit, [delivery(box, "a", (file, len(data)))])
    gevent.sleep(0)
    task.kill()
    os.close(file)
    others = [source(b"another's bytes") for _ in range(3)]  # one of them has the old number
    store.commit([delivery(box, "b")])
    store.close()
    assert names(box) == (set(), {"a", "b"})
    assert (box / "new/a").read_bytes() == data
    for other in others:
        os.close(other)


def test_close_finishes_what_is_under_way(box: Path) -> None:
    store = Store()
    tasks = [gevent.spawn(store.commit, [delivery(box, str(number))]) for number in range(100)]
    gevent.sleep(0)
    store.close()
    store.close()
    gevent.joinall(tasks, raise_error=True)
    assert len(names(box)[1]) == 100
    with pytest.raises(RuntimeError, match="closed"):
        store.commit([delivery(box, "late")])
    assert len(names(box)[1]) == 100


def test_run(store: Store) -> None:
    assert store.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        store.run(divmod, 1, 0)


def test_a_store_serves_one_loop(box: Path, store: Store) -> None:
    store.commit([delivery(box, "a")])
    file = source(b"x")
    before = psutil.Process().num_fds()
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            store.commit([delivery(box, "b", (file, 1))])
        except RuntimeError as error:
            errors.append(error)
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "one event loop" in str(errors[0])
    assert psutil.Process().num_fds() == before
    os.close(file)


@pytest.mark.parametrize(
    "bounds", [{"threads": 0}, {"batch_files": 0}, {"batch_bytes": 0}, {"switch_interval": -1.0}], ids=str
)
def test_bounds(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Store(**bounds)


def test_a_full_disk(small_disk: Path, store: Store) -> None:
    box = make_box(small_disk / "box")
    stored = 0
    failed: list[OSError] = []
    while not failed:
        tasks = [gevent.spawn(store.commit, [delivery(box, f"{stored}.{n}", b"y" * 70_000)]) for n in range(4)]
        gevent.joinall(tasks)
        failed = [task.exception for task in tasks if task.exception]
        stored += 4 - len(failed)
    assert {error.errno for error in failed} == {errno.ENOSPC}
    tmp, new = names(box)
    assert not tmp
    assert len(new) == stored > 0
    assert {(box / "new" / name).stat().st_size for name in new} == {70_000}
    (box / "new" / new.pop()).unlink()
    (box / "new" / new.pop()).unlink()
    store.commit([delivery(box, "room", b"z" * 70_000)])
    assert "room" in names(box)[1]


def child(script: str, *arguments: str) -> list[str]:
    """The command of a monkey-patched Python, as a worker is."""
    patched = "import gevent.monkey; gevent.monkey.patch_all()\n" + script
    return [sys.executable, "-c", patched, *arguments]


def test_a_file_size_limit(box: Path) -> None:
    script = """
import resource, sys
from gsmtp.storage import Delivery, Store
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
store = Store()
try:
    box = sys.argv[1]
    store.commit([Delivery(f"{box}/tmp/{n}", f"{box}/new/{n}", b"", b"x" * n) for n in (10, 60_000)])
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run(child(script, str(box)), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "File too large\n"
    assert names(box) == (set(), set())


def test_a_process_ends_without_closing_its_store(box: Path) -> None:
    script = """
import sys
from gsmtp.storage import Delivery, Store
Store().commit([Delivery(f"{sys.argv[1]}/tmp/a", f"{sys.argv[1]}/new/a", b"", b"x")])
print("stored")
"""
    done = subprocess.run(child(script, str(box)), capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("stored\n", "")


COUNTS = """
import gevent, os, psutil, sys, time
from gsmtp.storage import Delivery, Store

box, process = sys.argv[1], psutil.Process()

def commit(store, name, file):
    try:
        store.commit([Delivery(f"{box}/tmp/{name}", f"{box}/new/{name}", b"", (file, 10))])
    except FileNotFoundError:
        pass

def count():
    return process.num_fds(), process.num_threads()

gevent.sleep(0)
before = count()
for turn in range(3):
    store = Store(threads=3)
    file = os.memfd_create("source")
    os.write(file, b"some bytes")
    for number in range(5):
        names = [*map(str, range(20)), "missing/x"]
        tasks = [gevent.spawn(commit, store, name, file) for name in names]
        gevent.sleep(0)
        tasks[number].kill()
        gevent.joinall(tasks)
    os.close(file)
    assert process.num_threads() > before[1]
    store.close()
deadline = time.monotonic() + 10
while count() != before and time.monotonic() < deadline:  # a thread ends a moment after its last word
    gevent.sleep(0.01)
print(*before, *count())
"""


def test_descriptors_and_threads_return(box: Path) -> None:
    done = subprocess.run(child(COUNTS, str(box)), capture_output=True, text=True, timeout=60, check=True)
    counts = done.stdout.split()
    assert counts[:2] == counts[2:]


WRITER = """
import gevent, hashlib, os, sys
from gsmtp.storage import Delivery, Store
box = sys.argv[1]
store = Store()

def write(session):
    number = 0
    while True:
        name = f"{session}.{number}"
        body = name.encode() * (100 + 997 * (number % 20))
        head = hashlib.sha256(body).hexdigest().encode()
        files = [f"{name}.{copy}" for copy in range(1 + number % 2)]
        store.commit([Delivery(f"{box}/tmp/{file}", f"{box}/new/{file}", head, body) for file in files])
        for file in files:
            os.write(1, f"{file}\\n".encode())
        number += 1

gevent.joinall([gevent.spawn(write, session) for session in range(10)])
"""


@pytest.mark.parametrize("turn", range(4))
def test_kill_in_mid_commit(box: Path, turn: int) -> None:
    process = subprocess.Popen(child(WRITER, str(box)), stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = process.stdout.readline()
    time.sleep(random.uniform(0.0, 0.3))
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read()
    process.wait()
    process.stdout.close()
    acknowledged = set(told.decode().splitlines()) if told.endswith(b"\n") else set()
    assert acknowledged
    assert acknowledged <= names(box)[1]
    for name in names(box)[1]:
        data = (box / "new" / name).read_bytes()
        assert hashlib.sha256(data[64:]).hexdigest().encode() == data[:64], name
