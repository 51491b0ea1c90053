from __future__ import annotations

import grp
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from gsmtp_workers import BindError, Listener
from gsmtp_workers.sockets import bind_all, close_all
from harness.waiting import wait_for
from running import BUSY, Client, Start, alive, plan, processor_time, stop


def ask(server: Any, command: Any) -> Any:
    with server.connect() as client:
        return client.ask(command)


def facts(server: Any) -> Any:
    return json.loads(ask(server, "facts"))


def test_what_a_worker_finds(start: Start) -> None:
    server = start(plan(workers=1)).until_ready()
    found = facts(server)
    assert found["patched"] == ["queue", "socket", "ssl", "threading"]
    assert found["lock"].startswith("gevent")
    assert found["path"] == found["cwd"] == server.plan.chdir
    assert found["nodelay"]
    assert found["listeners"] == [["line", ["127.0.0.1", int(server.address.split(":")[1])]]]
    assert found["environment"] == {"MALLOC_ARENA_MAX": "2", "GEVENT_TRACK_GREENLET_TREE": "0"}
    assert found["inheritable"] == []
    assert "MonkeyPatchWarning" not in server.log


def test_descriptors_are_those_it_needs(start: Start) -> None:
    """The scoreboard, and an end each of the master pipe and the status pipe; not the master's ends."""
    server = start(plan(workers=2)).until_ready()
    found = facts(server)["descriptors"]
    with_pipe = [fd for fd, target in found.items() if target.startswith("pipe:") and int(fd) > 2]
    master = f"/proc/{server.process.pid}/fd"
    owned = {os.readlink(f"{master}/{fd}") for fd in os.listdir(master)}
    assert len([fd for fd in with_pipe if found[fd] in owned]) == 2, found
    files = {target.split()[0] for target in found.values() if target.startswith("/memfd:")}
    assert files == {"/memfd:scoreboard"}


def test_the_scoreboard_tells(start: Start) -> None:
    server = start(plan(workers=2)).until_ready()
    with server.connect() as one, server.connect() as two:
        slots = json.loads(one.ask("board"))
        assert sorted(slot["pid"] for slot in slots) == sorted(server.pids())
        assert {slot["state"] for slot in slots} == {"READY"}
        assert sum(slot["sessions"] for slot in slots) == 2
        assert sum(slot["accepted"] for slot in slots) == 2
        assert sum(slot["counters"]["greeted"] for slot in slots) == 2
        assert all(slot["rss"] > 1e6 and 0 <= slot["lag"] < 5 for slot in slots)
        first = {slot["pid"]: slot["beat"] for slot in slots}
        wait_for(lambda: all(s["beat"] > first[s["pid"]] for s in json.loads(two.ask("board"))))


def test_totals_survive_the_workers(start: Start) -> None:
    server = start(plan(workers=1)).until_ready()
    ask(server, "x")
    os.kill(server.pids()[0], signal.SIGKILL)
    wait_for(lambda: server.log.count(" ready after") == 2)
    assert json.loads(ask(server, "totals")) == {"accepted": 2, "greeted": 2, "open": 1}


def test_a_service_may_start_processes_by_multiprocessing(start: Start) -> None:
    """They import the main module again, which must not become a second worker."""
    server = start(plan(workers=1)).until_ready()
    assert ask(server, "multiprocessing") == "5"


def test_a_worker_is_not_started_by_hand() -> None:
    done = subprocess.run([sys.executable, "-m", "gsmtp_workers"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "python -m gsmtp_workers is started by the master, not by hand\n"


def test_shared_memory_is_one_for_all_and_outlives_them(start: Start) -> None:
    server = start(plan(workers=2, shared_memory=5000)).settled()
    clients = [server.connect() for _ in range(6)]
    told = [json.loads(client.ask("shared")) for client in clients]
    assert told[-1] == [5000, *(sum(client.slot == slot for client in clients) for slot in range(4))]
    assert told[-1][1] and told[-1][2]
    victim = next(client for client in clients if client.slot == 0)
    survivor = next(client for client in clients if client.slot == 1)
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: server.log.count(" ready after") == 3)
    assert json.loads(survivor.ask("shared")) == [5000, told[-1][1], told[-1][2] + 1, 0, 0]
    for client in clients:
        client.close()


def test_no_shared_memory_unless_wanted(start: Start) -> None:
    assert ask(start(plan(workers=1)).until_ready(), "shared") == "none"
    assert start(plan(shared_memory=100), "check").ended() == 0


def test_the_beat_stops_while_the_loop_is_blocked(start: Start) -> None:
    server = start(plan(workers=2)).settled()
    clients = [server.connect() for _ in range(6)]
    blocked = next(client for client in clients if client.slot == 0)
    watching = next(client for client in clients if client.slot == 1)
    blocked.socket.sendall(b"block 1.5\n")
    time.sleep(1.3)
    slots = {slot["slot"]: slot for slot in json.loads(watching.ask("board"))}
    assert slots[1]["beat"] - slots[0]["beat"] > 0.5
    assert blocked.file.readline() == b"block 1.5\n"
    wait_for(lambda: {s["slot"]: s for s in json.loads(watching.ask("board"))}[0]["lag"] > 0.5, timeout=1.0)
    for client in clients:
        client.close()


def test_a_full_worker_accepts_again_when_a_session_ends(start: Start) -> None:
    server = start(plan(workers=1, max_sessions=2)).until_ready()
    one, two = server.connect(), server.connect()
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=0.5) as third:
        with pytest.raises(TimeoutError):
            third.recv(1)
        one.close()
        third.settimeout(20)
        assert third.recv(100).startswith(b"hello")
    two.close()


def test_few_descriptors_left(start: Start) -> None:
    """Newcomers hear that it is busy, sessions go on, and when some have ended newcomers are served again."""
    server = start(plan(workers=1, argument={"descriptors": 60})).until_ready()
    served = []
    while (client := server.connect()).greeting != BUSY:
        served.append(client)
        assert len(served) < 60
    assert client.file.read() == b""  # an end, not a reset
    client.close()
    assert len(served) > 5
    for _ in range(40):
        with server.connect() as other:
            assert other.greeting == BUSY
    assert [client.ask("x") for client in served] == ["x"] * len(served)
    open_files = json.loads(served[0].ask("facts"))["descriptors"]
    assert 60 - 15 - 2 <= max(map(int, open_files)) < 60
    wait_for(lambda: re.search(r"worker 0 has no descriptors left: \d+ turned away", server.log))
    for client in served:
        client.close()
    wait_for(lambda: server.connect().greeting.startswith(b"hello"))
    assert len(server.pids()) == 1


def test_out_of_descriptors(start: Start) -> None:
    """accept fails with EMFILE: the worker neither dies nor spins, says so once, and serves again later."""
    # Even the farewells use them up: nobody closes, and each is waited for.
    server = start(plan(workers=1, argument={"descriptors": 40}, linger=20.0)).until_ready()
    host, _, port = server.address.rpartition(":")
    [pid] = server.pids()
    sockets = [socket.create_connection((host, int(port)), timeout=20) for _ in range(60)]
    wait_for(lambda: "cannot accept: [Errno 24]" in server.log)
    before = processor_time(pid)
    time.sleep(1.0)
    assert processor_time(pid) - before < 0.3
    for sock in sockets:
        sock.close()
    with server.connect() as client:
        assert client.pid == pid
    assert server.log.count("cannot accept") == 1


def test_a_failing_session_harms_nobody(start: Start) -> None:
    server = start(plan(workers=1)).until_ready()
    with server.connect() as client:
        assert client.ask("fail") == ""
    assert ask(server, "still here") == "still here"
    [slot] = server.board()
    assert slot["sessions"] == 1


def test_usr2_shows_the_stack_even_of_a_stuck_loop(start: Start) -> None:
    server = start(plan(workers=1)).until_ready()
    with server.connect() as client:
        client.socket.sendall(b"block 1\n")
        time.sleep(0.3)
        os.kill(client.pid, signal.SIGUSR2)
        wait_for(lambda: re.search(r'lineservice.py", line \d+ in answer', server.log), timeout=0.5)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE])
def test_signals_that_do_not_kill_a_worker(start: Start, number: Any) -> None:
    server = start(plan(workers=1)).until_ready()
    [pid] = server.pids()
    os.kill(pid, number)
    assert ask(server, "x") == "x"
    assert server.pids() == [pid]


def test_exit_callbacks_run_last(start: Start) -> None:
    server = start(plan(workers=1)).until_ready()
    [pid] = server.pids()
    assert stop(server) == 0
    assert f"exit callback in {pid}" in server.log


def test_an_exit_that_hangs_is_cut_off(start: Start) -> None:
    options: dict[str, Any] = {"linger": 0.1, "stop_timeout": 0.2, "kill_after": 0.2}
    server = start(plan(workers=1, argument={"sticky": True}, **options)).until_ready()
    [pid] = server.pids()
    server.process.kill()
    server.ended()
    wait_for(lambda: not alive(pid))


def test_one_handle_for_each_listener(start: Start, tmp_path: Path) -> None:
    listeners = (Listener("a", "127.0.0.1"), Listener("b", path=str(tmp_path / "socket")))
    server = start(plan(workers=2, listeners=listeners)).until_ready()
    assert server.addresses[1] == str(tmp_path / "socket")
    for address in server.addresses:
        with Client(address) as client:
            assert client.ask("x") == "x"


def _nobody_can_run_python() -> Any:
    if os.geteuid() != 0:
        return False
    script = "import os, sys; os.setuid(int(sys.argv[1])); os.chdir(sys.argv[2]); import sqlite3, gevent"
    arguments = [str(pwd.getpwnam("nobody").pw_uid), os.path.dirname(__file__)]
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_workers_become_the_group(start: Start) -> None:
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
    server = start(plan(workers=1, group=group.gr_name)).until_ready()
    found = facts(server)
    assert (found["uid"], found["gid"], found["groups"]) == (0, group.gr_gid, [group.gr_gid])


@pytest.mark.skipif(not _nobody_can_run_python(), reason="this interpreter is not for everybody")
def test_workers_become_the_user(start: Start) -> None:
    entry = pwd.getpwnam("nobody")
    group = grp.getgrgid(entry.pw_gid).gr_name
    server = start(plan(workers=1, user="nobody", group=group)).until_ready()
    found = facts(server)
    assert (found["uid"], found["gid"]) == (entry.pw_uid, entry.pw_gid)
    assert 0 not in found["groups"]


def test_an_orphan_drains_and_frees_the_port(start: Start) -> None:
    """kill -9 of the master: listeners close at once, sessions may finish, the workers end."""
    server = start(plan(workers=2, argument={"grace": 1.0})).until_ready()
    pids = server.pids()
    client = server.connect()
    server.process.kill()
    server.process.wait()
    host, _, port = server.address.rpartition(":")
    again = plan(listeners=(Listener("line", host, int(port)),))

    def rebound() -> bool:
        try:
            close_all(bind_all(again.listeners), 0.0)
        except BindError:
            return False
        return True

    wait_for(rebound)
    assert client.ask("still served") == "still served"
    wait_for(lambda: not any(alive(pid) for pid in pids))
    client.close()
