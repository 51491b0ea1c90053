"""Both roles of a transport against each other: in clear and under TLS, blocking and on gevent, in one process.

Every test runs for each pair of a client's and a server's transport. The server's end, whichever it is, runs in a
thread of its own with its own event loop.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from time import monotonic
from typing import Any

import pytest
from harness.transports import BIG, KINDS, WAIT, pairs, peer

from gsmtp.net.errors import ConnectionLost, ConnectionTimedOut
from gsmtp.net.socket_transport import SocketTransport, connect
from gsmtp.net.transport import ClearTransport


def everything(transport: ClearTransport) -> bytes:
    """All octets up to the end."""
    found = []
    while data := transport.read():
        found.append(data)
    return b"".join(found)


def echo(transport: ClearTransport) -> None:
    data = everything(transport)
    transport.write(data)


@pairs
def test_big_data_both_ways(ours: str, theirs: str) -> None:
    with peer(theirs, echo) as (sock, _):
        transport = KINDS[ours](sock)
        transport.write(BIG)
        transport.finish_writing()
        assert everything(transport) == BIG
        transport.close()
        transport.close()


@pairs
def test_some_and_the_rest(ours: str, theirs: str) -> None:
    with peer(theirs, everything) as (sock, result):
        transport = KINDS[ours](sock)
        assert transport.write_some(b"begin ")
        if not transport.write_some(BIG):
            assert not transport.write_some(b"between ")
            transport.write_rest()
        if not transport.write_last(b"end"):
            transport.write_rest()
        transport.close()
    assert result[0] in (b"begin " + BIG + b"end", b"begin " + BIG + b"between end")


@pairs
def test_a_peer_that_closes(ours: str, theirs: str) -> None:
    with peer(theirs, lambda transport: None) as (sock, _):
        transport = KINDS[ours](sock)
        assert transport.read() == b""
        with pytest.raises(ConnectionLost):
            transport.write(BIG)
            transport.write(BIG)
        transport.offer(b"lost")
        transport.finish_writing()
        transport.close()


def test_deadline_of_a_read() -> None:
    here, there = socket.socketpair()
    with there:
        transport = SocketTransport(here, monotonic() + 0.05)
        with pytest.raises(ConnectionTimedOut, match="timed out"):
            transport.read()
        # What is there already is read, whatever the time; the deadline ends waits.
        there.sendall(b"late")
        assert transport.read() == b"late"
        transport.deadline = monotonic() + WAIT
        there.sendall(b"in time")
        assert transport.read() == b"in time"
        transport.close()


def test_deadline_of_a_write() -> None:
    here, there = socket.socketpair()
    with there:
        transport = SocketTransport(here, monotonic() + 0.05)
        with pytest.raises(ConnectionTimedOut):
            transport.write(BIG)
        # The rest is kept in its order.
        assert not transport.write_some(b"behind")
        transport.deadline = monotonic() + WAIT
        received = bytearray()

        def read() -> None:
            while data := there.recv(1 << 16):
                received.extend(data)

        thread = threading.Thread(target=read)
        thread.start()
        transport.write_rest()
        transport.close()
        thread.join(WAIT)
    assert bytes(received) == BIG + b"behind"


def test_a_closed_transport() -> None:
    here, there = socket.socketpair()
    there.close()
    transport = SocketTransport(here)
    transport.close()
    for call in (transport.read, lambda: transport.write(b"x")):
        with pytest.raises(ConnectionLost, match="closed"):
            call()
    transport.offer(b"x")
    transport.finish_writing()


def test_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport = connect(listener.getsockname()[:2], monotonic() + WAIT)
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        accepted.close()
        with pytest.raises(ConnectionLost, match="reset"):
            transport.read()
        transport.close()


def test_connect(tmp_path: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        transport = connect(("127.0.0.1", port), monotonic() + WAIT, ("127.0.0.2", 0))
        accepted, address = listener.accept()
        assert address[0] == "127.0.0.2"
        accepted.sendall(b"hello")
        assert transport.read() == b"hello"
        transport.close()
        accepted.close()
    with pytest.raises(ConnectionLost, match=rf"^127\.0\.0\.1:{port}: Connection refused$") as caught:
        connect(("127.0.0.1", port), monotonic() + WAIT)
    assert not isinstance(caught.value, ConnectionTimedOut)
    path = str(tmp_path / "socket")
    with pytest.raises(ConnectionLost, match="No such file"):
        connect(path)
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(path)
        local.listen()
        connect(path, monotonic() + WAIT).close()


def test_connect_is_ended_by_its_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        # The kernel drops what comes once the backlog is full.
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(address)
        with pytest.raises(ConnectionTimedOut, match=r"^127\.0\.0\.1:\d+: timed out$"):
            connect(address, monotonic() + 0.2)
        for sock in waiting:
            sock.close()


PATCHED = """
from gevent import monkey
monkey.patch_all()
import gevent, socket
from gsmtp.net.socket_transport import SocketTransport
here, there = socket.socketpair()
client, server = SocketTransport(here), SocketTransport(there)
def serve():
    while data := server.read():
        server.write(data)
    server.close()
serving = gevent.spawn(serve)
for size in (1, 1000, 5_000_000):
    writing = gevent.spawn(client.write, b"x" * size)
    got = 0
    while got < size:
        got += len(client.read())
    writing.join()
client.finish_writing()
assert client.read() == b""
serving.join(10)
assert serving.successful()
"""


def test_a_blocking_transport_is_cooperative_when_patched() -> None:
    subprocess.run([sys.executable, "-c", PATCHED], check=True, timeout=60)


def test_a_client_needs_no_gevent() -> None:
    program = "import sys, gsmtp.net.socket_transport, gsmtp.net.tls; assert 'gevent' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
