from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from gsmtp_workers import Listener, Plan, PlanError, Role
from gsmtp_workers.identity import resolve_identity
from gsmtp_workers.master import run
from gsmtp_workers.pool import Backoff
from gsmtp_workers.proctitle import set_title
from harness.waiting import TIMEOUT, wait_for
from running import FAREWELL, HERE, Client, Start, alive, plan, stop


def modules(server: Any) -> Any:
    """What the master had imported in its whole life."""
    return set(json.loads(server.process.stdout.read().splitlines()[-1]))


def test_one_worker_first_then_the_others(start: Start) -> None:
    server = start(plan(workers=3)).until_ready()
    assert len(server.pids()) == 3
    lines = [line for line in server.log.splitlines() if "ready after" in line]
    assert lines[0].startswith("worker 0 (pid ")
    started = {pid: psutil.Process(pid).create_time() for pid in server.pids()}
    [first] = map(int, re.findall(r"pid (\d+)", lines[0]))
    assert all(first == pid or started[first] < started[pid] for pid in started)
    assert "listening on line (127.0.0.1:" in server.log


def test_the_master_imports_little(start: Start) -> None:
    server = start(plan(workers=1)).until_ready()
    with server.connect() as client:
        client.ask("x")
    assert stop(server) == 0
    found = modules(server)
    assert "gsmtp_workers.master" in found
    assert not {name for name in found if name.split(".")[0] in ("gevent", "greenlet", "ssl", "asyncio", "lineservice")}


def test_the_master_has_one_thread(start: Start) -> None:
    server = start(plan(workers=1)).until_ready()
    assert psutil.Process(server.process.pid).num_threads() == 1


@pytest.mark.parametrize(
    ("name", "text", "factory", "status", "complaint"),
    [
        ("missing", None, "make", 4, r"cannot load missing:make: No module named 'missing'"),
        (
            "syntax",
            "def make(:",
            "make",
            4,
            r"cannot load syntax:make: \S+/syntax.py, line 1: invalid syntax",
        ),
        ("empty", "", "make", 4, r"cannot load empty:make: module empty has no make"),
        (
            "needy",
            "import not_there",
            "make",
            4,
            r"cannot load needy:make: No module named 'not_there' \(\S+, line 1\)",
        ),
    ],
)
def test_code_that_cannot_be_loaded(
    start: Start, tmp_path: Path, name: str, text: str | None, factory: str, status: int, complaint: str
) -> None:
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    server = start(plan(f"{name}:{factory}", chdir=str(tmp_path)))
    assert server.ended() == status
    lines = [line for line in server.log.splitlines() if not line.startswith(("listening", "worker"))]
    assert len(lines) == 1
    assert re.fullmatch(complaint, lines[0])


@pytest.mark.parametrize(
    ("factory", "status", "last_line"),
    [
        ("refuse", 7, "the database is away"),
        ("crash", 3, "RuntimeError: no good"),
        ("too_few", 4, "lineservice:too_few made 0 handles for 1 listeners"),
        ("not_callable", 4, "lineservice:not_callable is not callable"),
    ],
)
def test_factories_that_fail(start: Start, factory: str, status: int, last_line: str) -> None:
    server = start(plan(f"lineservice:{factory}"))
    assert server.ended() == status
    lines = [line for line in server.log.splitlines() if not line.startswith(("listening", "worker"))]
    assert lines[-1] == last_line
    assert ("Traceback" in server.log) == (factory == "crash")
    assert re.search(rf"worker 0 \(pid \d+\) died: status {status}, after .* never ready", server.log)


def test_a_boot_that_hangs_is_ended_and_shows_where(start: Start) -> None:
    server = start(plan("lineservice:hang", boot_timeout=3.0, kill_after=2.0))
    assert server.ended() == 128 + signal.SIGABRT
    assert "not ready after 3 s" in server.log
    assert re.search(r'lineservice.py", line \d+ in hang', server.log)


def test_check(start: Start) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    listeners = (Listener("line", "127.0.0.1", taken.getsockname()[1]),)
    with taken:  # nothing is bound
        assert start(plan(listeners=listeners), "check").ended() == 0
    server = start(plan("lineservice:refuse"), "check")
    assert server.ended() == 7
    assert server.log == "the database is away\n"


def test_a_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(plan(listeners=(Listener(f"line://127.0.0.1:{port}", "127.0.0.1", port),)))
        assert server.ended() == 1
    assert server.log == f"cannot bind line://127.0.0.1:{port}: Address already in use\n"


def test_plans_that_cannot_be_followed() -> None:
    with pytest.raises(PlanError, match="no listeners"):
        run(Plan((Role("a:b"),)))
    with pytest.raises(PlanError, match="no user 'no such user'"):
        resolve_identity(plan(user="no such user"))
    with pytest.raises(PlanError, match="no group 'no such group'"):
        resolve_identity(plan(group="no such group"))


def test_a_unix_socket_is_removed_at_the_end(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start(plan(listeners=(Listener("unix", path=str(path)),))).until_ready()
    with server.connect() as client:
        assert client.ask("x") == "x"
    server.signal(signal.SIGTERM)
    assert server.ended() == 0
    assert not path.exists()


def test_after_kill_9_of_all_a_unix_socket_is_replaced(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listeners = (Listener("unix", path=str(path)),)
    server = start(plan(listeners=listeners)).until_ready()
    pids = server.pids()
    server.process.kill()
    server.ended()
    wait_for(lambda: not any(map(alive, pids)))
    assert path.exists()
    with start(plan(listeners=listeners)).until_ready().connect() as client:
        assert client.ask("x") == "x"


def test_a_killed_worker_comes_back_and_nobody_is_refused(start: Start) -> None:
    server = start(plan(workers=2)).until_ready()
    stopped = threading.Event()
    failures = []

    def knock() -> None:
        while not stopped.is_set():
            try:
                with socket.create_connection(("127.0.0.1", int(server.address.split(":")[1])), timeout=20):
                    pass
            except OSError as error:
                failures.append(error)

    thread = threading.Thread(target=knock)
    thread.start()
    victim = server.pids()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: server.log.count(" ready after") == 3)
    stopped.set()
    thread.join()
    assert failures == []
    assert victim not in server.pids()
    assert re.search(rf"worker 0 \(pid {victim}\) died: SIGKILL, after .* s; next one in 0.5 s", server.log)


def test_a_worker_that_lived_long_enough_is_replaced_at_once(start: Start) -> None:
    server = start(plan(workers=1, min_lifetime=0.0)).until_ready()
    os.kill(server.pids()[0], signal.SIGKILL)
    wait_for(lambda: server.log.count(" ready after") == 2)
    assert "died: SIGKILL" in server.log
    assert "next one now" in server.log


def test_failures_wait_longer_and_longer(start: Start, tmp_path: Path) -> None:
    argument = {"mark": str(tmp_path / "mark")}
    server = start(plan("lineservice:once", argument, workers=2, backoff_first=0.05, backoff_limit=0.2))
    server.until_ready(1)
    wait_for(lambda: server.log.count("next one in") >= 4, timeout=60.0)
    waits = re.findall(r"worker 1 .*next one in (\S+) s", server.log)
    assert waits[:4] == ["0.1", "0.1", "0.2", "0.2"]  # 0.05 is rounded
    with server.connect() as client:
        assert client.slot == 0


def test_back_off_numbers() -> None:
    backoff = Backoff()
    assert [backoff.fail(plan(), 0.0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.retry_at == 60.0


def test_ttin_and_ttou(start: Start) -> None:
    server = start(plan(workers=1)).until_ready()
    server.signal(signal.SIGTTIN)
    wait_for(lambda: server.log.count(" ready after") == 2)
    server.signal(signal.SIGTTOU)
    wait_for(lambda: re.search(r"worker 1 .* ended: status 0", server.log))
    server.signal(signal.SIGTTOU)
    wait_for(lambda: server.log.count("SIGTTOU: 1 workers wanted") == 2)
    assert len(server.pids()) == 1
    assert [slot["slot"] for slot in server.board()] == [0]


def test_term_to_a_worker_drains_it_alone(start: Start) -> None:
    """Its session may finish, its successor is there meanwhile, and nobody hears a farewell."""
    server = start(plan(workers=1, argument={"grace": 60.0, "early": True})).until_ready()
    with server.connect() as client:
        os.kill(client.pid, signal.SIGTERM)
        wait_for(lambda: server.log.count(" ready after") == 2)
        assert client.ask("still served") == "still served"
        with server.connect() as other:
            assert other.pid != client.pid
    wait_for(lambda: re.search(rf"worker 0 \(pid {client.pid}\) ended: status 0", server.log))
    assert "next one in" not in server.log


def test_roles(start: Start) -> None:
    """Each role has its processes, its listeners and its names; they end together."""
    queue = Role("lineservice:idle", processes=1, name="queue")
    server = start(plan(workers=1, roles=(queue,), argument={"grace": 0.5})).until_ready()
    with server.connect() as client:
        board = {slot["slot"]: slot for slot in json.loads(client.ask("board"))}
        assert board.keys() == {0, 65}
        descriptors = [{os.readlink(link) for link in _descriptors(slot["pid"])} for slot in board.values()]
        shared = {name for name in descriptors[0] & descriptors[1] if name.startswith("socket:")}
        assert shared == set()  # what a role does not serve it does not inherit
    os.kill(board[65]["pid"], signal.SIGKILL)
    wait_for(lambda: server.log.count("queue 0 (pid ") >= 3 and server.log.count(" ready after") == 3)
    server.signal(signal.SIGTERM)
    assert server.ended() == 0
    assert "SIGTERM: draining 2 workers" in server.log
    assert re.search(r"queue 0 of \d+ ends", server.log)
    assert server.log.count("ended: status 0") == 2


def _descriptors(pid: Any) -> Any:
    directory = f"/proc/{pid}/fd"
    return [f"{directory}/{fd}" for fd in os.listdir(directory)]


def test_a_role_that_cannot_start_ends_the_run(start: Start) -> None:
    server = start(plan(workers=1, roles=(Role("lineservice:refuse", name="queue", processes=1),)))
    assert server.ended() == 7
    assert re.search(r"queue 0 \(pid \d+\) died: status 7, after .* never ready", server.log)
    assert start(server.plan, "check").ended() == 7


def test_process_titles(start: Start) -> None:
    pytest.importorskip("setproctitle")
    server = start(plan(workers=1, title="line")).until_ready()
    assert _title(server.process.pid) == "line-master"
    assert [_title(pid) for pid in server.pids()] == ["line: worker 0"]


def _title(pid: Any) -> Any:
    return " ".join(psutil.Process(pid).cmdline()).strip()


def test_titles_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "setproctitle", None)
    set_title("no matter")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_for_later_are_logged(start: Start, number: Any) -> None:
    server = start(plan(workers=1)).until_ready()
    server.signal(number)
    wait_for(lambda: f"{signal.Signals(number).name} ignored" in server.log)
    with server.connect() as client:
        assert client.ask("x") == "x"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_quick_stop(start: Start, number: Any) -> None:
    server = start(plan(workers=2, argument={"grace": 60.0})).until_ready()
    with server.connect() as client:
        server.signal(number)
        assert client.file.read() == b""
    assert server.ended(5) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_makes_a_drain_quick(start: Start, number: Any) -> None:
    server = start(plan(workers=2, argument={"grace": 60.0})).until_ready()
    with server.connect() as client:
        server.signal(signal.SIGTERM)
        wait_for(lambda: "SIGTERM: draining 2 workers" in server.log)
        assert client.ask("x") == "x"
        server.signal(number)
        assert client.file.read() == b""
    assert server.ended(5) == 0


def test_ctrl_c_reaches_the_whole_group(start: Start) -> None:
    server = start(plan(workers=2, argument={"grace": 60.0}), start_new_session=True).until_ready()
    with server.connect() as client:
        os.killpg(server.process.pid, signal.SIGINT)
        assert client.file.read() == b""
    assert server.ended(5) == 0
    assert "Traceback" not in server.log
    assert "died" not in server.log


def test_term_to_the_whole_group(start: Start) -> None:
    """As from systemd: workers that drain by themselves learn that the server ends, and say farewell."""
    server = start(plan(workers=2, argument={"grace": 1.5}), start_new_session=True).until_ready()
    with server.connect() as client:
        os.killpg(server.process.pid, signal.SIGTERM)
        wait_for(lambda: "SIGTERM: draining" in server.log)
        assert client.ask("still served") == "still served"
        with server.connect() as late:
            assert late.greeting == FAREWELL
        assert client.ask("and still") == "and still"  # so it was a worker that said it, not the master
    assert server.ended() == 0
    assert "died" not in server.log


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.06, 0.09])
def test_ctrl_c_while_a_worker_starts(start: Start, delay: float) -> None:
    server = start(plan("lineservice:hang"), start_new_session=True)
    wait_for(server.pids)
    time.sleep(delay)
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.ended(5) == 0
    assert "Traceback" not in server.log


def test_a_worker_that_cannot_be_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = tmp_path / "home"
    home.mkdir()
    promised = plan(chdir=str(home))
    home.rmdir()
    handler = signal.getsignal(signal.SIGTERM)
    assert run(promised) == 1
    assert "cannot start worker 0: [Errno 2]" in caplog.text
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_signals_during_boot(start: Start, number: Any) -> None:
    server = start(plan("lineservice:hang"))
    wait_for(lambda: "listening" in server.log and server.pids())
    time.sleep(0.3)
    server.signal(number)
    assert server.ended(5) == 0
    assert "Traceback" not in server.log


def test_an_ignored_sigint_stays_ignored(start: Start) -> None:
    server = start(plan(workers=1), start_new_session=True, preexec_fn=_ignore_sigint).until_ready()
    os.killpg(server.process.pid, signal.SIGINT)
    time.sleep(0.3)
    with server.connect() as client:
        assert client.ask("x") == "x"
    assert stop(server) == 0


def _ignore_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_as_process_1_it_reaps_what_others_leave(tmp_path: Path) -> None:
    """In a container orphans become children of the master."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        unshare.append("--map-root-user")  # a namespace of users, too, in which anybody may
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no right to make a process namespace (unshare --pid)")
    path = tmp_path / "socket"
    program = [sys.executable, str(HERE / "runmaster.py"), plan(listeners=(Listener("x", path=str(path)),)).to_json()]
    with (tmp_path / "log").open("wb") as log:
        outer = subprocess.Popen([*unshare, *program], stdout=subprocess.DEVNULL, stderr=log)
    try:
        wait_for(lambda: (tmp_path / "log").read_text().count("ready after") == 2)
        [master] = psutil.Process(outer.pid).children()
        with Client(str(path)) as client:
            for _ in range(5):
                assert client.ask("orphan") == "orphan"
        wait_for(lambda: len(master.children()) > 2)
        wait_for(lambda: len(master.children()) == 2)
        master.children()[0].kill()
        wait_for(lambda: (tmp_path / "log").read_text().count("ready after") == 3)
        master.send_signal(signal.SIGTERM)
        assert outer.wait(TIMEOUT) == 0
    finally:
        outer.kill()
        outer.wait()


def test_closed_standard_descriptors(start: Start, tmp_path: Path) -> None:
    """A listener must not get the number of a standard stream that is closed."""
    path = tmp_path / "socket"
    listeners = (Listener("unix", path=str(path)),)
    server = start(plan(listeners=listeners, workers=1), stdout=None, preexec_fn=_close_all)
    server.addresses = [str(path)]
    wait_for(lambda: _accepts(path))
    with server.connect() as client:
        found = json.loads(client.ask("facts"))["descriptors"]
    assert [found[str(fd)] for fd in range(3)] == ["/dev/null"] * 3
    assert stop(server) == 0


def _accepts(path: Any) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def _close_all() -> None:
    os.closerange(0, 3)


def test_a_drain_has_an_end(start: Start) -> None:
    """Sessions that do not end are cut off after drain_timeout."""
    server = start(plan(workers=1, argument={"grace": 60.0}, drain_timeout=0.5)).until_ready()
    with server.connect():
        server.signal(signal.SIGTERM)
        assert server.ended() == 0
    assert "worker 0: 1 sessions cut off" in server.log


def test_a_worker_that_cannot_drain_is_killed(start: Start) -> None:
    server = start(plan(workers=1, drain_timeout=0.2, kill_after=0.3)).until_ready()
    with server.connect() as client:
        client.socket.sendall(b"block 30\n")
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        assert server.ended() == 0
    assert "does not end, killing it" in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nobody_is_reset_by_an_end(start: Start, number: Any) -> None:
    """Clients that come all through it see service, a farewell, or are refused."""
    for grace in (0.0, 0.3):
        server = start(plan(workers=2, argument={"grace": grace})).until_ready()
        address = ("127.0.0.1", int(server.address.split(":")[1]))
        seen: set[str] = set()
        threads = [threading.Thread(target=_come_and_go, args=(address, seen)) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        server.signal(number)
        assert server.ended() == 0
        for thread in threads:
            thread.join()
        assert seen <= {"hello", "farewell", "refused"}, seen
        assert {"hello", "refused"} <= seen
        if grace and number == signal.SIGTERM:
            assert "farewell" in seen


def _come_and_go(address: Any, seen: Any) -> None:
    while True:
        with socket.socket() as sock:
            sock.settimeout(20)
            try:
                sock.connect(address)
            except ConnectionRefusedError:
                seen.add("refused")
                return
            except OSError as error:
                seen.add(f"connect: {error!r}")
                return
            try:
                greeting = sock.recv(100)
                if greeting == FAREWELL:
                    seen.add("farewell")
                    sock.sendall(b"too late\n")
                    while sock.recv(100):
                        pass
                    continue
                if not greeting.startswith(b"hello"):
                    if greeting:  # an end between accept and greeting is a clean close
                        seen.add(f"greeting: {greeting!r}")
                    continue
                seen.add("hello")
                sock.sendall(b"a\nquit\n")
                while sock.recv(100):
                    pass
            except OSError as error:
                seen.add(f"session: {errno.errorcode.get(error.errno or 0, error)}")
                return
