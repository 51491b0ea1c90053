"""gsmtp/storage against real files, real full disks and real kills."""

from __future__ import annotations

import array
import errno
import hashlib
import marshal
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import psutil
import pytest

from gsmtp.storage import Delivery, Store, writer


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


def test_what_is_not_an_oserror_reaches_the_caller_and_the_writer_lives_on(box: Path, store: Store) -> None:
    with pytest.raises(RuntimeError, match=r"ValueError: .*embedded null"):
        store.commit([delivery(box, "nul\0")])
    store.commit([delivery(box, "a")])
    assert names(box) == (set(), {"a"})


def test_an_error_names_the_path(box: Path, store: Store) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        store.commit([delivery(box / "\udce9", "a")])
    assert caught.value.filename == f"{box}/\udce9/tmp/a"


def test_the_loop_goes_on_while_many_commit(box: Path, store: Store) -> None:
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
    # On the loop, the first commit alone would have stood it for some 400 syncs.
    assert beats
    assert max(beats) < 0.5


Done = list[tuple[str, str]]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Done:
    """What is synced and renamed in this process, in order."""
    done: Done = []
    fsync, rename = os.fsync, os.rename

    def noting_fsync(file: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file}")
        size = os.fstat(file).st_size
        fsync(file)
        done.append(("sync", path if os.path.isdir(path) else f"{path} {size}"))

    def noting_rename(source: bytes, target: bytes) -> None:
        rename(source, target)
        done.append(("rename", source.decode()))

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    return done


def file(box: Path, name: str, content: bytes = b"12345") -> writer.File:
    return f"{box}/tmp/{name}".encode(), f"{box}/new/{name}".encode(), b"head", content


def test_the_order_of_what_makes_a_file_durable(box: Path, tmp_path: Path, done: Done) -> None:
    """Each file is synced before it is renamed, its directory once after that."""
    boxes = [box, make_box(tmp_path / "other")]
    writer.process([writer.Job([file(each, str(n)) for each in boxes]) for n in range(5)], True)
    for each in boxes:
        for number in range(5):
            name = f"{each}/tmp/{number}"
            synced, renamed = done.index(("sync", f"{name} 9")), done.index(("rename", name))
            assert synced < renamed < done.index(("sync", f"{each}/new"))
        assert done.count(("sync", f"{each}/new")) == 1
    assert len(done) == 22


def serve(requests: list[tuple[int, list[writer.File]]], batch_files: int = 64) -> list[list[tuple[int, object]]]:
    """What a writer in this process answers, frame by frame, when all requests lie there before it looks."""
    ours, its = socket.socketpair()
    with ours, its:
        for request in requests:
            ours.sendall(writer.frame([request]))
        ours.shutdown(socket.SHUT_WR)
        writer.serve(its, True, batch_files)
        its.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: ours.recv(65536), b""))
    answers = []
    while received:
        end = writer.LENGTH + int.from_bytes(received[: writer.LENGTH], "big")
        answers.append(marshal.loads(received[writer.LENGTH : end]))
        received = received[end:]
    return answers


def test_what_waits_is_one_batch(box: Path, done: Done) -> None:
    answers = serve([(number, [file(box, str(number))]) for number in range(50)])
    assert answers == [[(number, None) for number in range(50)]]
    assert done.count(("sync", f"{box}/new")) == 1


@pytest.mark.parametrize(("files", "started"), [(3, 3), (1, 0)])
def test_writeback_starts_when_all_is_written(
    box: Path, monkeypatch: pytest.MonkeyPatch, files: int, started: int
) -> None:
    seen: list[list[int]] = []
    advise = os.posix_fadvise

    def noting(*arguments: int) -> None:
        seen.append([path.stat().st_size for path in (box / "tmp").iterdir()])
        advise(*arguments)

    monkeypatch.setattr(os, "posix_fadvise", noting)
    serve([(number, [file(box, str(number))]) for number in range(files)], 20)
    assert len(seen) == started
    assert all(sizes == sizes[:1] * files and sizes[0] > 0 for sizes in seen)


def send_copy(ours: socket.socket, box: Path, number: int, content: bytes) -> None:
    """A request for one file, whose content is that of a descriptor."""
    temporary, final, prefix, _ = file(box, str(number))
    copied = source(content)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [copied]))]
    ours.sendmsg([writer.frame([(number, [(temporary, final, prefix, (0, len(content)))])])], rights)
    os.close(copied)


def test_more_than_one_read_is_one_batch(box: Path, done: Done) -> None:
    """Octets beyond what a read takes, and descriptors, at each of which the kernel ends a read."""
    ours, its = socket.socketpair()
    with ours, its:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for number in range(6):
            if number % 2:
                ours.sendall(writer.frame([(number, [file(box, str(number), b"x" * 90_000)])]))
            else:
                send_copy(ours, box, number, b"number %d" % number)
        ours.shutdown(socket.SHUT_WR)
        writer.serve(its, True, 64)
    assert done.count(("sync", f"{box}/new")) == 1
    assert [(box / f"new/{n}").read_bytes() for n in (0, 2, 4)] == [b"headnumber %d" % n for n in (0, 2, 4)]
    assert [(box / f"new/{n}").stat().st_size for n in (1, 3, 5)] == [90_004] * 3


def test_a_batch_has_a_bound_of_octets(box: Path, done: Done) -> None:
    ours, its = socket.socketpair()
    with ours, its:
        for number in range(3):
            send_copy(ours, box, number, b"y" * 5_000_000)
        ours.shutdown(socket.SHUT_WR)
        writer.serve(its, True, 64)
    assert done.count(("sync", f"{box}/new")) == 3


def test_descriptors_that_are_lost_on_the_way_harm_nobody(box: Path, store: Store) -> None:
    """The kernel drops those for which a process has no room: no message may get the content of another."""
    store.start()
    (process,) = children()
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, 3))  # those that it has stay
    sources = [source(b"content %d" % number) for number in range(3)]
    tasks = [gevent.spawn(store.commit, [delivery(box, str(n), (each, 9))]) for n, each in enumerate(sources)]
    gevent.joinall(tasks, timeout=10)
    # Its end may be seen before the last is sent: then that has another writer.
    failed = [number for number, task in enumerate(tasks) if task.exception is not None]
    assert failed[0] == 0
    assert {getattr(tasks[number].exception, "errno", None) for number in failed} == {errno.EIO}
    assert names(box) == (set(), {str(number) for number in range(3) if number not in failed})
    tasks = [gevent.spawn(store.commit, [delivery(box, str(n), (sources[n], 9))]) for n in failed]
    gevent.joinall(tasks, timeout=10, raise_error=True)
    assert [(box / f"new/{n}").read_bytes() for n in range(3)] == [b"content %d" % n for n in range(3)]
    for each in sources:
        os.close(each)


def test_a_batch_has_a_bound(box: Path, done: Done) -> None:
    answers = serve([(number, [file(box, str(number))]) for number in range(50)], 20)
    assert [len(answer) for answer in answers] == [20, 20, 10]
    assert done.count(("sync", f"{box}/new")) == 3


def test_a_batch_gives_its_descriptors_back(box: Path) -> None:
    before = os.listdir("/proc/self/fd")
    jobs = [writer.Job([file(where, "a")], [source(b"x")]) for where in (box, box / "missing", box)]
    writer.process(jobs, True)
    assert [job.failure and job.failure[0] for job in jobs] == [None, errno.ENOENT, errno.EEXIST]
    assert os.listdir("/proc/self/fd") == before


def test_a_killed_greenlet_leaves_the_commit_to_the_writer(box: Path, store: Store) -> None:
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


@pytest.mark.parametrize("bounds", [{"writers": 0}, {"batch_files": 0}], ids=str)
def test_bounds(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Store(**bounds)  # type: ignore[arg-type]


def children() -> list[psutil.Process]:
    return psutil.Process().children()


def test_writers_start_when_there_is_more_to_do(box: Path) -> None:
    store = Store(writers=3)
    counts = []
    for sessions in (1, 2, 20):
        tasks = [gevent.spawn(store.commit, [delivery(box, f"{sessions}.{n}")]) for n in range(sessions)]
        gevent.joinall(tasks, raise_error=True)
        counts.append(len(children()))
    store.close()
    assert counts == [1, 2, 3]
    assert children() == []


@pytest.mark.parametrize("content", ["octets", "file"])
def test_more_than_the_socket_holds(box: Path, content: str) -> None:
    """A writer that does not read: the loop goes on, descriptors may be closed, and nothing is lost."""
    store = Store()
    store.start()
    (process,) = children()
    process.suspend()
    data = random.Random(3).randbytes(200_000)
    tasks = []
    for number in range(40):
        if content == "file":
            copied = source(data)
            head = data[:1000] * 70  # descriptors go beside octets, which must not fit either
            tasks.append(gevent.spawn(store.commit, [delivery(box, str(number), (copied, len(data)), head)]))
            gevent.sleep(0)
            os.close(copied)
        else:
            head = b""
            tasks.append(gevent.spawn(store.commit, [delivery(box, str(number), data)]))
            gevent.sleep(0)
    gevent.sleep(0.05)
    assert names(box) == (set(), set())
    process.resume()
    gevent.joinall(tasks, raise_error=True)
    store.close()
    assert all((box / f"new/{number}").read_bytes() == head + data for number in range(40))


def test_a_writer_that_dies(box: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """What it had is an error; the next commit has another writer; nothing is left of the first."""
    store.start()
    before = psutil.Process().num_fds()
    (process,) = children()
    process.suspend()
    copied = source(b"x" * 10)
    tasks = [gevent.spawn(store.commit, [delivery(box, str(number))]) for number in range(5)]
    tasks += [gevent.spawn(store.commit, [delivery(box, f"file{number}", (copied, 10))]) for number in range(5)]
    gevent.sleep(0.01)
    process.kill()
    gevent.joinall(tasks, timeout=10)
    os.close(copied)
    assert [getattr(task.exception, "errno", None) for task in tasks] == [errno.EIO] * 10
    store.commit([delivery(box, "next")])
    assert names(box) == (set(), {"next"})
    gevent.sleep(0.1)
    assert "files ended, status -9" in caplog.text
    assert [child.pid for child in children()] != [process.pid]
    assert len(children()) == 1
    assert psutil.Process().num_fds() == before


def test_a_writer_that_dies_idle(box: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.start()
    children()[0].kill()
    gevent.sleep(0.1)
    assert "files ended, status -9" in caplog.text
    assert children() == []
    store.commit([delivery(box, "a")])
    assert names(box) == (set(), {"a"})


def test_a_writer_that_dies_while_the_store_closes(box: Path) -> None:
    store = Store()
    store.start()
    (process,) = children()
    process.suspend()
    task = gevent.spawn(store.commit, [delivery(box, "a")])
    gevent.sleep(0)
    closing = gevent.spawn(store.close)
    gevent.sleep(0.01)
    process.kill()
    gevent.joinall([task, closing], timeout=10)
    assert isinstance(task.exception, OSError)
    assert closing.successful()
    assert children() == []


def test_a_writer_that_cannot_start(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = psutil.Process().num_fds()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(FileNotFoundError):
        store.start()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="ended"):
        store.start()
    gevent.sleep(0.1)
    assert psutil.Process().num_fds() == before


def test_signals_for_the_group_do_not_reach_it(box: Path, store: Store) -> None:
    store.start()
    (process,) = children()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        process.send_signal(number)
    store.commit([delivery(box, "a")])
    assert children() == [process]


def test_a_writer_does_not_grow(box: Path) -> None:
    store = Store(sync=False)
    store.start()
    (process,) = children()
    sizes = []
    for turn in range(3):
        for number in range(40):
            copied = source(b"x" * 100)
            files = [delivery(box, f"{turn}.{number}.{n}", (copied, 100) if n % 9 else b"y" * 9000) for n in range(50)]
            failing = [delivery(box / "missing", "a")]
            tasks = [gevent.spawn(store.commit, [each]) for each in files] + [gevent.spawn(store.commit, failing)]
            gevent.joinall(tasks)
            os.close(copied)
        sizes.append((process.memory_full_info().uss, process.num_fds()))
    store.close()
    assert len(names(box)[1]) == 6000
    assert sizes[2][0] - sizes[0][0] < 500_000
    assert sizes[2][1] == sizes[0][1]


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
import gevent, os, psutil, sys
from gsmtp.storage import Delivery, Store

box, process = sys.argv[1], psutil.Process()

def commit(store, name, file):
    try:
        store.commit([Delivery(f"{box}/tmp/{name}", f"{box}/new/{name}", b"", (file, 10))])
    except FileNotFoundError:
        pass

def count():
    return process.num_fds(), len(process.children())

gevent.sleep(0)
before = count()
for turn in range(3):
    store = Store(writers=3)
    file = os.memfd_create("source")
    os.write(file, b"some bytes")
    for number in range(5):
        names = [*map(str, range(20)), "missing/x"]
        tasks = [gevent.spawn(commit, store, name, file) for name in names]
        gevent.sleep(0)
        tasks[number].kill()
        gevent.joinall(tasks)
    os.close(file)
    assert len(process.children()) == 3
    store.close()
print(*before, *count())
"""


def test_descriptors_and_processes_return(box: Path) -> None:
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
    (writing,) = psutil.Process(process.pid).children()
    for victim in (process, writing) if turn % 2 else (writing, process):
        victim.kill()
    told += process.stdout.read()
    process.wait()
    writing.wait()
    process.stdout.close()
    acknowledged = set(told.decode().splitlines()) if told.endswith(b"\n") else set()
    assert acknowledged
    assert acknowledged <= names(box)[1]
    for name in names(box)[1]:
        data = (box / "new" / name).read_bytes()
        assert hashlib.sha256(data[64:]).hexdigest().encode() == data[:64], name
