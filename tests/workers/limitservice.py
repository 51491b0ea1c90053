"""A line service that counts as it is told, for test_sharedtable_live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent import socket
from gsmtp_workers.sharedtable import table_of


def make(worker: Any, argument: dict[str, Any]) -> list[Callable[[Any, object], None]]:
    table = table_of(worker, argument["entries"])

    def handle(raw: Any, address: object) -> None:
        sock = socket.socket(fileno=raw.detach())
        sock.sendall(f"hello {worker.slot} {worker.scoreboard.row(worker.slot)[0]:.0f}\n".encode())
        with sock, sock.makefile("rb") as lines:
            for line in lines:
                command, key, limit = line.decode().split()
                if command == "hold":
                    said: object = table.hold("sessions", key, int(limit))
                elif command == "release":
                    table.release("sessions", key)
                    said = None
                else:
                    said = table.take("messages", key, 1, int(limit), 3600.0)
                sock.sendall(f"{said}\n".encode())

    return [handle] * len(worker.listeners)
