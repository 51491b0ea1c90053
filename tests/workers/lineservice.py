"""A line service for the tests of `workers`: "pid" and "slot" are answered, "hold" keeps quiet, others come back."""

from __future__ import annotations

import gevent
from gevent import socket as gsocket


def make(worker, argument):
    """argument: {"greeting": str, "listeners": int, ...}; see the tests."""
    argument = argument or {}
    open_sessions = set()
    grace = argument.get("grace", 0.0)

    def handle(raw, address):
        sock = gsocket.socket(fileno=raw.detach())
        me = gevent.getcurrent()
        open_sessions.add(me)
        try:
            sock.sendall(f"hello {worker.slot} {__import__('os').getpid()}\r\n".encode())
            if worker.counters:
                worker.counters[0] += 1
            file = sock.makefile("rb")
            for line in file:
                if line == b"quit\r\n":
                    break
                sock.sendall(line)
        except OSError:
            pass
        finally:
            open_sessions.discard(me)
            sock.close()

    def drain():
        gevent.sleep(grace)
        gevent.killall(list(open_sessions), block=False)

    worker.on_drain(drain)
    worker.on_stop(lambda: gevent.killall(list(open_sessions), block=False))
    return [handle] * len(worker.listeners)
