"""An SMTP client in several processes, for what smtp-source cannot do. Run by path, with the arguments of `main`.

If a reply does not have the expected code, the exit status is 1 and standard error says why. Else it prints one line of
JSON: `wall` and `cpu` in seconds, without the start of the interpreter. It uses TLS 1.3 and resumes no session. It does
not know which server it talks to. This is the benchmark's only reader of replies; a client library will take its place.

Weaknesses: sockets block. A process does its handshakes one after the other; kept connections go in step, each command
to all before the first reply is read, so the slowest reply delays the others.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import ssl
import sys
import time
import traceback

TIMEOUT = 30.0  # seconds for one reply
CHUNK = 65536


def context() -> ssl.SSLContext:
    """Return a TLS context that accepts any certificate: the client's checks are not measured."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    # gevent's SSLSocket, as most programs, closes without close_notify.
    made.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    return made


class UnexpectedReply(Exception):
    """A reply is not the one expected, or the connection was closed."""


class Client:
    """Makes connections to `port` of 127.0.0.1. `tls` is "plain", "implicit" or "starttls".

    The methods raise OSError and UnexpectedReply.
    """

    def __init__(self, port: int, tls: str) -> None:
        self._port = port
        self._tls = tls
        self._context = context()

    def open(self) -> socket.socket:
        """Connect, and return the socket after the reply to EHLO, under TLS."""
        sock = socket.create_connection(("127.0.0.1", self._port), TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls == "implicit":
            sock = self._context.wrap_socket(sock)
        expect(sock, b"220")
        if self._tls == "starttls":
            command(sock, b"EHLO client.example.com\r\n", b"250")
            command(sock, b"STARTTLS\r\n", b"220")
            sock = self._context.wrap_socket(sock)
        command(sock, b"EHLO client.example.com\r\n", b"250")
        return sock

    def connections(self, count: int) -> None:
        """Do `count` sessions one after the other, without a message."""
        for _ in range(count):
            with self.open() as sock:
                command(sock, b"QUIT\r\n", b"221")

    def messages(self, count: int, size: int, sessions: int) -> None:
        """Send `count` messages of `size` octets over `sessions` connections in step."""
        text = b"x" * 78 + b"\r\n"
        header = b"From: <sender@example.com>\r\nSubject: benchmark\r\n\r\n"
        body = (header + text * (size // len(text) + 1))[: size - 2] + b"\r\n"
        dialogue = [
            (b"MAIL FROM:<sender@example.com>\r\n", b"250"),
            (b"RCPT TO:<recipient@example.com>\r\n", b"250"),
            (b"DATA\r\n", b"354"),
            (body + b".\r\n", b"250"),
        ]
        held = [self.open() for _ in range(min(sessions, count))]
        while count > 0:
            taking_part = held[:count]
            for line, code in dialogue:
                for sock in taking_part:
                    sock.sendall(line)
                for sock in taking_part:
                    expect(sock, code)
            count -= len(taking_part)
        for sock in held:
            command(sock, b"QUIT\r\n", b"221")
            sock.close()


def command(sock: socket.socket, line: bytes, code: bytes) -> None:
    """Send a command line and read its reply. Raises OSError, UnexpectedReply."""
    sock.sendall(line)
    expect(sock, code)


def expect(sock: socket.socket, code: bytes) -> None:
    """Read one reply, whose code must be `code`. Raises OSError, UnexpectedReply.

    RFC 5321 4.2: the last line has a space after the code, others a hyphen.
    """
    received = b""
    while True:
        data = sock.recv(CHUNK)
        received += data
        last = received.removesuffix(b"\r\n").rpartition(b"\r\n")[2]
        if received.endswith(b"\r\n") and last[3:4] in (b" ", b""):
            if last.startswith(code):
                return
            raise UnexpectedReply(f"{code.decode()} expected: {last!r}")
        if not data:
            raise UnexpectedReply(f"closed after {received!r}")


def share(whole: int, parts: int) -> list[int]:
    """Return `whole` in `parts` nearly equal numbers."""
    return [whole // parts + (number < whole % parts) for number in range(parts)]


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("port", type=int)
    add("--tls", choices=["plain", "implicit", "starttls"], default="plain")
    add("--count", type=int, required=True, help="messages, or sessions without --size")
    add("--size", type=int, default=0, help="octets of a message; 0: no message, a new connection each time")
    add("--sessions", type=int, default=1, help="at once, with --size")
    add("--processes", type=int, default=1)
    options = parser.parse_args()
    client = Client(options.port, options.tls)
    begin = time.monotonic()
    counts, sessions = share(options.count, options.processes), share(options.sessions, options.processes)
    children = []
    for count, held in zip(counts, sessions, strict=True):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if options.size:
                    client.messages(count, options.size, held)
                else:
                    client.connections(count)
                status = 0
            except (OSError, UnexpectedReply) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    wall, used = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime}))
    return 1 if any(statuses) else 0


if __name__ == "__main__":
    sys.exit(main())
