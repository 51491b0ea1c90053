"""Listening sockets: the master binds them before it starts a worker, and closes them after the last one has ended.

Promises: all listeners are bound or none (`BindError`); at the end nobody who got through to a listener is
reset without a farewell. Must not know: workers, signals, protocols (a farewell is bytes). Weak: two
masters that start at the same instant on the same stale unix socket can take it from each other.
"""

from __future__ import annotations

import array
import contextlib
import errno
import logging
import os
import selectors
import socket
import stat
import struct
import sys
import time
from collections.abc import Sequence

from gsmtp_workers.plan import BindError, Listener

log = logging.getLogger("workers")

_SO_ATTACH_FILTER = getattr(socket, "SO_ATTACH_FILTER", 26)
# Classic BPF over the TCP header: load byte 13 (flags); SYN without ACK -> 0 (drop), else keep.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # ldb [13]
    (0x54, 0, 0, 0x12),  # and SYN|ACK
    (0x15, 0, 1, 0x02),  # jeq SYN, next, skip one
    (0x06, 0, 0, 0),  # ret 0
    (0x06, 0, 0, 0x40000),  # ret all
)
# Linux: segments with a smaller TTL, or hop limit in IPv6, are dropped. The socket module has no names for them.
_IP_MINTTL, _IPV6_MINHOPCOUNT = 21, 73
_HIGHEST_TTL = 255


class BoundListener:
    """A listener with its open, non-blocking socket, and its real `address` as text ("host:port" or the path)."""

    def __init__(self, listener: Listener, sock: socket.socket, path: str = "") -> None:
        self.listener = listener
        self.socket = sock
        self.address = path or show_address(sock.getsockname())
        self._path = path
        self._file = _identity(path) if path else None

    def remove_file(self) -> None:
        """Remove the unix socket's file if it is still the one that was made here. Raises OSError."""
        if self._file is not None and _identity(self._path) == self._file:
            os.unlink(self._path)
        self._file = None


def show_address(address: object) -> str:
    """Return a socket address as text: "192.0.2.1:25", "[2001:db8::1]:25", or a unix socket's path."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return os.fsdecode(address) if isinstance(address, bytes) else str(address)


def bind_all(listeners: Sequence[Listener]) -> list[BoundListener]:
    """Bind every listener, in order. Raises BindError when one cannot be bound; then none is."""
    bound: list[BoundListener] = []
    try:
        for listener in listeners:
            bound.append(_bind(listener, listeners))
    except OSError as error:
        unbind(bound)
        raise BindError(listener.name, _reason(error)) from None
    except BindError:
        unbind(bound)
        raise
    return bound


def check_all(listeners: Sequence[Listener]) -> None:
    """Raise the BindError that `bind_all` would raise, as far as that can be found out without listening.

    An address in use is no error here: the server that uses it may be the one that is checked.
    """
    for listener in listeners:
        try:
            if listener.path:
                _check_unix(listener)
            else:
                _bind_tcp(listener, listeners).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise BindError(listener.name, _reason(error)) from None


def close_all(bound: Sequence[BoundListener], linger: float) -> None:
    """Accept what still waits, close the listeners, send the farewells; takes `linger` seconds at most, in all.

    No client is reset, because nobody new gets in first (a unix socket's file is removed, a TCP listener drops further
    SYNs, which the clients repeat and then see refused), then the backlog is emptied, and only then the listener is
    closed. A handshake whose last segment arrives after the last accept is still reset. Where `drop_newcomers` finds
    no way, so is each client that connects between the last accept and the close; a warning says so.
    """
    open_sockets: list[socket.socket] = []
    exposed: list[str] = []
    for item in bound:
        try:
            item.remove_file()
        except OSError as error:
            log.warning("cannot remove %s: %s", item.address, _reason(error))
        if not drop_newcomers(item.socket):
            exposed.append(item.address)
    if exposed:
        log.warning("clients that connect now may be reset, SYNs cannot be dropped here: %s", ", ".join(exposed))
    for item in bound:
        open_sockets.extend(_accept_rest(item))
        item.socket.close()
    _read_to_end(open_sockets, linger)


def say_farewell(sock: socket.socket, farewell: bytes) -> bool:
    """Send a farewell on a non-blocking socket and close our half. Returns False when the client has gone already."""
    try:
        if farewell:
            sock.send(farewell)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


def discard(sock: socket.socket) -> bool:
    """Read and throw away what has arrived, at most 1 MiB, so that one client cannot hold up others.

    Returns True when the client has closed (or reset), False when it may send more.
    """
    try:
        for _ in range(16):
            if not sock.recv(65536):
                return True
    except BlockingIOError:
        pass
    except OSError:
        return True
    return False


def drop_newcomers(sock: socket.socket) -> bool:
    """Let no further TCP connection begin on a listener; handshakes under way and the backlog go on.

    A socket filter drops each SYN. Some systems refuse filters to a process without rights; there the listener asks
    for a TTL (hop limit) of 255, which needs none. Linux compares it with the TTL of a SYN, but not with that of the
    segment that completes a handshake. Only a host on the same link can send with a TTL of 255 here, and few do.

    Returns False if the system knows neither way. A unix socket needs none: without its file nobody finds it.
    """
    return sock.family == socket.AF_UNIX or _attach_filter(sock) or _set_least_ttl(sock, _HIGHEST_TTL)


def _attach_filter(sock: socket.socket) -> bool:
    program = array.array("Q", b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    where, _ = program.buffer_info()
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_SYN), where))
    except OSError:
        return False
    return True


def _set_least_ttl(sock: socket.socket, least: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, least)  # [::] serves IPv4, too
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, least)
    except OSError:
        return False
    return True


def _bind(listener: Listener, all_listeners: Sequence[Listener]) -> BoundListener:
    if listener.path:
        return _bind_unix(listener)
    sock = _bind_tcp(listener, all_listeners)
    try:
        sock.listen(listener.backlog)
    except BaseException:
        sock.close()
        raise
    return BoundListener(listener, sock)


def _bind_tcp(listener: Listener, all_listeners: Sequence[Listener]) -> socket.socket:
    host = listener.host or "::"
    found = socket.getaddrinfo(host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, address = found[0][0], found[0][4]
    shared = host == "::" and not any(
        other.host and ":" not in other.host and other.port == listener.port != 0 for other in all_listeners
    )
    try:
        return _bound(family, address, shared)
    except OSError as error:
        # The system has no IPv6, as in many containers: all addresses are then all IPv4 addresses.
        if not shared or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _bound(socket.AF_INET, ("0.0.0.0", listener.port), shared=False)


def _bound(family: int, address: object, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not shared)
        # On Linux accepted sockets inherit this, which saves a system call for each.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.bind(address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(listener: Listener) -> BoundListener:
    path = os.path.abspath(listener.path)
    _remove_stale(listener.name, path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        umask = os.umask(0o777 & ~listener.mode)  # so that the mode is never wider than asked for
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
        os.chmod(path, listener.mode)
        sock.listen(listener.backlog)
    except BaseException:
        sock.close()
        raise
    return BoundListener(listener, sock, path)


def _check_unix(listener: Listener) -> None:
    path = os.path.abspath(listener.path)
    directory = os.path.dirname(path)
    os.stat(os.path.join(directory, ""))  # with the slash: that it is a directory
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with contextlib.suppress(FileNotFoundError):
        _check_socket(listener.name, path)


def _check_socket(name: str, path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise BindError(name, f"{path} exists and is not a socket")


def _remove_stale(name: str, path: str) -> None:
    try:
        _check_socket(name, path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # its backlog is full: the server lives
            pass
    raise BindError(name, os.strerror(errno.EADDRINUSE))


def unbind(bound: Sequence[BoundListener]) -> None:
    """Close listeners that nobody has been told of, and remove their files."""
    for item in bound:
        item.remove_file()
        item.socket.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if error.errno else str(error)


def _accept_rest(item: BoundListener) -> list[socket.socket]:
    accepted: list[socket.socket] = []
    while True:
        try:
            sock, _ = item.socket.accept()
        except ConnectionAbortedError:
            continue
        except OSError:  # nobody left, or no descriptor for them
            return accepted
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            _set_least_ttl(sock, 0)  # one whose handshake was under way has the listener's
        if say_farewell(sock, item.listener.farewell):
            accepted.append(sock)
        else:
            sock.close()


def _read_to_end(open_sockets: list[socket.socket], linger: float) -> None:
    deadline = time.monotonic() + linger
    with selectors.DefaultSelector() as selector:
        for sock in open_sockets:
            selector.register(sock, selectors.EVENT_READ, sock)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if discard(key.data):
                    selector.unregister(key.data)
                    key.data.close()
    for sock in open_sockets:
        sock.close()
