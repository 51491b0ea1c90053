"""Real masters and real clients, for the tests of `workers`."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
from gsmtp_workers import Column, Kind, Listener, Plan, Role

HERE = Path(__file__).parent
PATIENCE = 20.0
FAREWELL = b"farewell\n"
BUSY = b"busy\n"


def wait_for(condition, patience=PATIENCE):
    """The first true value of `condition()`; fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


COUNTERS = (Column("greeted", Kind.COUNTER, "clients greeted"), Column("open", Kind.GAUGE, "clients at present"))


def plan(factory="lineservice:make", argument=None, listeners=None, workers=2, roles=(), **options):
    """A plan with two workers on a free port of 127.0.0.1, and further roles."""
    if listeners is None:
        listeners = (Listener("line", "127.0.0.1", farewell=FAREWELL, busy=BUSY),)
    options = {"chdir": str(HERE), "counters": COUNTERS, **options}
    return Plan((Role(factory, argument or {}, listeners, workers), *roles), **options)


class Client:
    """A connection that has been greeted by a worker: `slot` and `pid` say by which."""

    def __init__(self, address):
        if isinstance(address, str) and address.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(address)
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE)
        self.file = self.socket.makefile("rb")
        self.greeting = self.file.readline()
        if self.greeting.startswith(b"hello"):
            self.slot, self.pid = (int(word) for word in self.greeting.split()[1:])

    def ask(self, command):
        self.socket.sendall(command.encode() + b"\n")
        return self.file.readline().decode().strip()

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def heed_sigint():
    """A shell starts background jobs with SIGINT ignored, and the master leaves it so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Running:
    """A master in a process of its own, with its log."""

    def __init__(self, plan, directory, *arguments, **popen):
        self.plan = plan
        self.log_path = directory / f"log{len(list(directory.iterdir()))}"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "runmaster.py"), plan.to_json(), *arguments],
                **{"stdout": subprocess.PIPE, "stderr": log, "preexec_fn": heed_sigint, **popen},
            )
        self.addresses = None

    @property
    def log(self):
        return self.log_path.read_text()

    @property
    def address(self):
        return self.addresses[0]

    def until_ready(self, workers=None):
        """Wait for the first worker of each role, and then for as many as the plan wants."""
        line = self.process.stdout.readline()
        assert line, self.log
        self.addresses = json.loads(line)
        wanted = sum(role.processes for role in self.plan.roles) if workers is None else workers
        wait_for(lambda: self.log.count(" ready after") >= wanted)
        return self

    def settled(self):
        """`until_ready`, and every worker has seen every other worker's heartbeat."""
        self.until_ready()
        time.sleep(1.2 * self.plan.heartbeat)
        return self

    def connect(self):
        return Client(self.address)

    def signal(self, number):
        self.process.send_signal(number)

    def pids(self):
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def board(self):
        with self.connect() as client:
            return json.loads(client.ask("board"))

    def ended(self, patience=PATIENCE):
        """Wait for the master's end; its exit status."""
        return self.process.wait(patience)

    def clean_up(self):
        children = []
        if self.process.poll() is None:
            try:
                children = psutil.Process(self.process.pid).children()
            except psutil.NoSuchProcess:
                pass
            self.process.kill()
            self.process.wait()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                pass
        if self.process.stdout:
            self.process.stdout.close()


def stop(running):
    """End it quickly; its exit status."""
    running.signal(signal.SIGQUIT)
    return running.ended()


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processor_time(pid):
    """Seconds of processor time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
