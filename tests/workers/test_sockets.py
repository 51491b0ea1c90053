from __future__ import annotations

import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gsmtp_workers import BindError, Listener, sockets
from gsmtp_workers.sockets import bind_all, close_all, drop_newcomers
from running import FAREWELL


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can drop a SYN")
needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here")


@pytest.fixture
def bind() -> Iterator[Any]:
    everything = []

    def bind(*listeners: Any) -> Any:
        bound = bind_all(listeners)
        everything.extend(bound)
        return bound

    yield bind
    close_all([item for item in everything if item.socket.fileno() >= 0], 0.0)


def port(item: Any) -> Any:
    return item.socket.getsockname()[1]


def reason(*listeners: Any) -> Any:
    with pytest.raises(BindError) as caught:
        bind_all(listeners)
    assert str(caught.value) == f"cannot bind {caught.value.name}: {caught.value.reason}"
    return caught.value.name, caught.value.reason


def connect(port: Any, host: str = "127.0.0.1") -> Any:
    return socket.create_connection((host, port), timeout=5)


def test_port_0_is_any(bind: Any) -> None:
    a, b = bind(Listener("a", "127.0.0.1"), Listener("b", "127.0.0.1"))
    assert port(a) != port(b)
    assert a.address == f"127.0.0.1:{port(a)}"
    assert a.socket.gettimeout() == 0.0


def test_accepted_sockets_inherit_nodelay(bind: Any) -> None:
    [item] = bind(Listener("a", "127.0.0.1"))
    with connect(port(item)):
        accepted, _ = item.socket.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_and_none_is_kept(bind: Any, tmp_path: Path) -> None:
    [item] = bind(Listener("a", "127.0.0.1"))
    path = tmp_path / "socket"
    taken = Listener("line://taken", "127.0.0.1", port(item))
    assert reason(Listener("b", path=str(path)), taken) == ("line://taken", "Address already in use")
    assert not path.exists()


def test_an_address_of_another_machine() -> None:
    assert reason(Listener("a", "192.0.2.1", 0)) == ("a", "Cannot assign requested address")


def test_a_name_that_means_nothing() -> None:
    name, _ = reason(Listener("a", "no such host", 0))
    assert name == "a"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may bind any port")
def test_a_privileged_port() -> None:
    assert reason(Listener("a", "127.0.0.1", 1)) == ("a", "Permission denied")


@needs_ipv6
def test_the_wildcard_serves_both_families(bind: Any) -> None:
    [item] = bind(Listener("a", "::"))
    assert item.address == f"[::]:{port(item)}"
    connect(port(item)).close()
    connect(port(item), "::1").close()


@needs_ipv6
def test_the_wildcard_beside_ipv4_on_the_same_port(bind: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    for host in ("0.0.0.0", "127.0.0.1"):
        for order in (1, -1):
            six, four = Listener("six", "::", number), Listener("four", host, number)
            items = bind(*(six, four)[::order])
            connect(number).close()
            connect(number, "::1").close()
            close_all(items, 0.0)


def test_unix_socket(bind: Any, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    [item] = bind(Listener("a", path=str(path), mode=0o620))
    assert item.address == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o620
    close_all([item], 0.0)
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(bind: Any, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        stale.listen()
    bind(Listener("a", path=str(path)))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_unix_socket_is_left_alone(bind: Any, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    bind(Listener("a", path=str(path), backlog=1))
    assert reason(Listener("b", path=str(path))) == ("b", "Address already in use")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for client in clients:  # fill the backlog: it lives though it cannot answer
        client.setblocking(False)
        client.connect_ex(str(path))
    assert reason(Listener("b", path=str(path))) == ("b", "Address already in use")
    for client in clients:
        client.close()
    assert path.exists()


def test_another_file_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    assert reason(Listener("a", path=str(path))) == ("a", f"{path} exists and is not a socket")
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_or_leads_nowhere(tmp_path: Path) -> None:
    assert "too long" in reason(Listener("a", path=str(tmp_path / ("x" * 200))))[1]
    assert reason(Listener("a", path=str(tmp_path / "none" / "x"))) == ("a", "No such file or directory")


def test_only_the_own_socket_file_is_removed(bind: Any, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    [mine] = bind(Listener("a", path=str(path)))
    path.unlink()
    bind(Listener("b", path=str(path)))
    close_all([mine], 0.0)
    assert path.exists()


@pytest.mark.parametrize("unix", [False, True])
def test_who_waits_in_the_backlog_gets_a_farewell(bind: Any, tmp_path: Path, unix: bool) -> None:
    listener = Listener("a", path=str(tmp_path / "socket")) if unix else Listener("a", "127.0.0.1")
    [item] = bind(Listener("a", listener.host, path=listener.path, farewell=FAREWELL))
    clients = []
    for _ in range(20):
        client = socket.socket(item.socket.family)
        client.settimeout(5)
        client.connect(item.socket.getsockname())
        client.sendall(b"x" * 1000)  # unread data would turn the close into a reset
        clients.append(client)
    closing = threading.Thread(target=close_all, args=([item], 5.0))
    closing.start()
    for client in clients:
        assert client.recv(100) == FAREWELL
        client.sendall(b"one more\r\n")
        assert client.recv(100) == b""
        client.close()
    closing.join(4)
    assert not closing.is_alive(), "it should not wait for clients that have closed"


def _without_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse filters, as some systems do for a process without rights."""
    monkeypatch.setattr(sockets, "_attach_filter", lambda sock: False)


HOSTS = [
    ("127.0.0.1", "127.0.0.1"),
    ("0.0.0.0", "127.0.0.1"),
    pytest.param("::1", "::1", marks=needs_ipv6),
    pytest.param("::", "::1", marks=needs_ipv6),
    pytest.param("::", "127.0.0.1", marks=needs_ipv6),
]


@needs_linux
@pytest.mark.parametrize("rights", [True, False])
@pytest.mark.parametrize(("host", "client"), HOSTS)
def test_newcomers_are_dropped_and_those_who_wait_are_kept(
    bind: Any, monkeypatch: pytest.MonkeyPatch, host: Any, client: Any, rights: bool
) -> None:
    if not rights:
        _without_rights(monkeypatch)
    [item] = bind(Listener("a", host))
    with connect(port(item), client) as early, socket.socket(early.family) as late:
        assert drop_newcomers(item.socket)
        late.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.connect((client, port(item)))
        accepted, address = item.socket.accept()
        with accepted:
            assert address[1] == early.getsockname()[1]
            early.sendall(b"x")
            accepted.settimeout(5)
            assert accepted.recv(10) == b"x"
        with pytest.raises(BlockingIOError):
            item.socket.accept()


@needs_linux
@pytest.mark.parametrize("rights", [True, False])
@pytest.mark.parametrize(("host", "client"), HOSTS)
def test_a_handshake_under_way_ends_with_a_farewell(
    bind: Any, monkeypatch: pytest.MonkeyPatch, host: Any, client: Any, rights: bool
) -> None:
    if not rights:
        _without_rights(monkeypatch)
    [item] = bind(Listener("a", host, farewell=FAREWELL))
    # The kernel puts the end of a handshake off until data comes.
    item.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    with connect(port(item), client) as early:
        assert drop_newcomers(item.socket)
        with pytest.raises(BlockingIOError):
            item.socket.accept()
        early.sendall(b"x")
        closing = threading.Thread(target=close_all, args=([item], 60.0))
        closing.start()
        assert early.recv(100) == FAREWELL
        early.sendall(b"one more\r\n")
        assert early.recv(100) == b""
    closing.join(30)
    assert not closing.is_alive(), "what the client sent did not arrive"


def test_it_is_said_when_newcomers_cannot_be_dropped(
    bind: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    _without_rights(monkeypatch)
    monkeypatch.setattr(sockets, "_set_least_ttl", lambda sock, least: False)
    items = bind(Listener("a", "127.0.0.1"), Listener("b", path=str(tmp_path / "b")), Listener("c", "127.0.0.1"))
    close_all(items, 0.0)
    [record] = [record for record in caplog.records if "may be reset" in record.message]
    assert record.levelname == "WARNING"
    assert record.message.endswith(f": {items[0].address}, {items[2].address}")


@pytest.mark.parametrize("rights", [True, False])
def test_nobody_is_reset_while_listeners_close(bind: Any, monkeypatch: pytest.MonkeyPatch, rights: bool) -> None:
    """Clients that connect all the time see a farewell or are refused."""
    if not rights:
        _without_rights(monkeypatch)
    for _ in range(3):
        [item] = bind(Listener("a", "127.0.0.1", farewell=FAREWELL))
        address = item.socket.getsockname()
        seen: list[str] = []

        def client(address: Any = address, seen: Any = seen) -> None:
            while True:
                with socket.socket() as sock:
                    sock.settimeout(5)
                    try:
                        sock.connect(address)
                    except ConnectionRefusedError:
                        return
                    except OSError as error:
                        seen.append(error)
                        return
                    try:
                        seen.append(sock.recv(100))
                        sock.sendall(b"quit")
                        seen.append(sock.recv(100) or FAREWELL)
                    except OSError as error:
                        seen.append(error)
                        return

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        close_all([item], 1.0)
        for thread in threads:
            thread.join(10)
        assert set(seen) <= {FAREWELL}


def test_clients_that_do_not_close_cost_only_the_linger(bind: Any) -> None:
    [item] = bind(Listener("a", "127.0.0.1", farewell=FAREWELL))
    clients = [connect(port(item)) for _ in range(5)]
    closing = threading.Thread(target=close_all, args=([item], 0.2))
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    for client in clients:
        client.close()
