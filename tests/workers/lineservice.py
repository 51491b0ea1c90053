"""A line service for the tests of `workers`: greets with slot and pid, answers commands, echoes the rest."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

import gevent
from gevent import monkey
from gevent import socket as gevent_socket
from gsmtp_workers import BootError

PATCHED = ["queue", "socket", "ssl", "threading"]


class Service:
    """`argument` may have "grace", seconds that sessions go on in a drain, "early", whether it then ends
    with the last session, and "descriptors", a limit."""

    def __init__(self, worker: Any, argument: Any) -> None:
        self.worker = worker
        self.grace = argument.get("grace", 0.0)
        self.early = argument.get("early", False)
        self.sessions: set[Any] = set()
        if "descriptors" in argument:
            resource.setrlimit(resource.RLIMIT_NOFILE, (argument["descriptors"],) * 2)
        if argument.get("sticky"):
            atexit.register(_forever)
        worker.on_drain(self.drain)
        worker.on_stop(self.cut)
        worker.on_exit(lambda: print(f"exit callback in {os.getpid()}", file=sys.stderr, flush=True))

    def handle(self, raw: Any, address: Any) -> None:
        assert raw.gettimeout() == 0.0
        assert not isinstance(raw, gevent_socket.socket)
        sock = gevent_socket.socket(fileno=raw.detach())
        me = gevent.getcurrent()
        self.sessions.add(me)
        try:
            self.say(sock, f"hello {self.worker.slot} {os.getpid()}")
            if self.worker.counters:
                self.worker.counters[0] += 1
                self.worker.counters[1] += 1
            with sock.makefile("rb") as lines:
                for line in lines:
                    answer = self.answer(line.decode().strip(), sock)
                    if answer is None:
                        break
                    self.say(sock, answer)
        except OSError:
            pass
        finally:
            self.sessions.discard(me)
            if self.worker.counters:
                self.worker.counters[1] -= 1
            self.close(sock)

    def answer(self, command: Any, sock: Any) -> Any:
        if command == "quit":
            return None
        if command == "fail":
            raise RuntimeError("as asked")
        if command == "board":
            slots = self.worker.scoreboard.read()
            return json.dumps([{**asdict(slot), "state": slot.state.name} for slot in slots])
        if command == "totals":
            return json.dumps(self.worker.scoreboard.totals())
        if command == "shared":
            shared = self.worker.shared
            if shared is None:
                return "none"
            shared[self.worker.slot] += 1
            return json.dumps([len(shared), *shared[:4]])
        if command == "facts":
            return json.dumps(self.facts(sock))
        if command == "multiprocessing":
            process = multiprocessing.get_context("spawn").Process(target=sys.exit, args=(5,))
            process.start()
            process.join()
            return str(process.exitcode)
        if command == "orphan":  # a process that ends when its parent has long ended
            subprocess.run(["sh", "-c", "sleep 0.5 >/dev/null 2>&1 &"], check=True)
        if command.startswith("block "):
            deadline = time.monotonic() + float(command.split()[1])
            while time.monotonic() < deadline:
                pass
        return command

    def facts(self, sock: Any) -> Any:
        address = sock.getsockname()
        return {
            "patched": [name for name in PATCHED if monkey.is_module_patched(name)],
            "lock": type(threading.Lock()).__module__,
            "path": sys.path[0],
            "cwd": os.getcwd(),
            "uid": os.getuid(),
            "gid": os.getgid(),
            "groups": os.getgroups(),
            "nodelay": isinstance(address, tuple)
            and sock.getsockopt(gevent_socket.IPPROTO_TCP, gevent_socket.TCP_NODELAY),
            "listeners": [[item.name, item.address] for item in self.worker.listeners],
            "descriptors": {
                fd: os.readlink(f"/proc/self/fd/{fd}")
                for fd in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{fd}")
            },
            "inheritable": [fd for fd in range(3, 64) if _inheritable(fd)],
            "environment": {name: os.environ.get(name) for name in ("MALLOC_ARENA_MAX", "GEVENT_TRACK_GREENLET_TREE")},
        }

    def drain(self) -> None:
        deadline = time.monotonic() + self.grace
        while time.monotonic() < deadline and (self.sessions or not self.early):
            gevent.sleep(0.01)
        self.cut()

    def cut(self) -> None:
        gevent.killall(list(self.sessions), block=False)

    @staticmethod
    def say(sock: Any, text: Any) -> None:
        sock.sendall(text.encode() + b"\n")

    @staticmethod
    def close(sock: Any) -> None:
        """With care: what the client still sends must not reset what we said."""
        try:
            sock.shutdown(gevent_socket.SHUT_WR)
            sock.settimeout(1.0)
            while sock.recv(65536):
                pass
        except OSError:
            pass
        sock.close()


def _forever() -> None:
    while True:
        monkey.get_original("time", "sleep")(1)


def _inheritable(fd: Any) -> Any:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def make(worker: Any, argument: Any) -> Any:
    return [Service(worker, argument or {}).handle] * len(worker.listeners)


def idle(worker: Any, argument: Any) -> list[Any]:
    """A role that accepts nothing."""
    assert worker.listeners == ()
    worker.on_exit(lambda: print(f"{worker.name} of {os.getpid()} ends", file=sys.stderr, flush=True))
    return []


def refuse(worker: Any, argument: Any) -> None:
    raise BootError("the database is away", status=7)


def crash(worker: Any, argument: Any) -> None:
    raise RuntimeError("no good")


def hang(worker: Any, argument: Any) -> None:
    while True:
        pass


def too_few(worker: Any, argument: Any) -> Any:
    return []


def once(worker: Any, argument: Any) -> Any:
    """The first worker starts, all further ones fail."""
    try:
        os.close(os.open(argument["mark"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        raise BootError("one is enough") from None
    return make(worker, argument)


not_callable = 5
