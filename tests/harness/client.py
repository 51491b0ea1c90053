"""The SMTP client of the tests.

It promises to send exactly the octets that it is given, and to return replies as they are. It checks only that each
line of a reply ends in CRLF. It knows nothing of the server's processes, log or settings. The sending end of the
protocol that gsmtp is to have will replace this file.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence

from harness.waiting import TIMEOUT

HOSTNAME = "mx.example.org"


def connect(address: str, timeout: float = TIMEOUT) -> socket.socket:
    """Return a connected socket. `address` is host:port, an IPv6 host in brackets, or the path of a unix socket.

    Raises OSError.
    """
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def dot_stuff(content: bytes) -> bytes:
    """Return the content as it is sent after 354: dots doubled (RFC 5321 4.5.2), and the end of data behind it.

    `content` must end in CRLF or be empty.
    """
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


class Client:
    """A connection to a server, and the conversation on it. A context manager that closes the connection.

    A reply is a str: its lines, joined by LF. It is "" at the end of the connection. A wait that takes longer than
    the timeout raises TimeoutError.
    """

    def __init__(
        self,
        address: str,
        timeout: float = TIMEOUT,
        tls: ssl.SSLContext | None = None,
        name: str = HOSTNAME,
        header: Sequence[bytes] = (),
    ) -> None:
        """Connect, and read the greeting into `banner`. With `tls`, do the handshake first, with `name` as SNI.

        `header` is sent before all else, each piece in a packet of its own: that of the PROXY protocol. Raises
        OSError, of which ssl.SSLError is one.
        """
        self.socket = connect(address, timeout)
        try:
            for piece in header:
                self.socket.sendall(piece)
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname=name or None)
        except BaseException:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")
        self.banner = self.reply()

    def secure(self, context: ssl.SSLContext, name: str = HOSTNAME, ehlo: bool = True) -> ssl.SSLSocket:
        """Send STARTTLS, do the handshake, and send EHLO if `ehlo`. Raises OSError when the handshake fails."""
        assert self.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
        return self.handshake(context, name, ehlo)

    def handshake(self, context: ssl.SSLContext, name: str = HOSTNAME, ehlo: bool = True) -> ssl.SSLSocket:
        """Do what `secure` does once the server has replied to STARTTLS. Raises OSError."""
        self.file.close()
        secure = context.wrap_socket(self.socket, server_hostname=name or None)
        self.socket, self.file = secure, secure.makefile("rb")
        if ehlo:
            assert self.ask("EHLO client.example").startswith("250")
        return secure

    def send(self, *packets: bytes | str) -> None:
        """Send each of `packets` in a packet of its own. Raises OSError."""
        for at, packet in enumerate(packets):
            if at:
                time.sleep(0.01)
            self.socket.sendall(packet if isinstance(packet, bytes) else packet.encode())

    def reply(self) -> str:
        """Read the next reply. Raises OSError."""
        lines = []
        while line := self.file.readline():
            assert line.endswith(b"\r\n"), line
            lines.append(line[:-2].decode("ascii"))
            if line[3:4] != b"-":
                break
        return "\n".join(lines)

    def replies(self, number: int) -> list[str]:
        """Read the next replies."""
        return [self.reply() for _ in range(number)]

    def codes(self, number: int) -> list[int]:
        """Read the next replies, and return their codes. Raises ValueError at the end of the connection."""
        return [int(reply[:3]) for reply in self.replies(number)]

    def rest(self) -> bytes:
        """Read until the server closes the connection."""
        return self.file.read()

    def ask(self, line: str) -> str:
        """Send a command and CRLF, and read the reply."""
        self.send(f"{line}\r\n")
        return self.reply()

    def code(self, data: bytes) -> int:
        """Send these octets, and return the code of the reply."""
        self.send(data)
        return self.codes(1)[0]

    def exchange(self, data: bytes, replies: int = 1) -> list[str]:
        """Send these octets, and read so many replies."""
        self.send(data)
        return self.replies(replies)

    def begin(self, *recipients: str, sender: str = "sender@client.example") -> list[str]:
        """Send MAIL and RCPT, one at a time, and return the replies."""
        replies = [self.ask(f"MAIL FROM:<{sender}>")]
        return replies + [self.ask(f"RCPT TO:<{each}>") for each in recipients or ("box@here.example",)]

    def content(self, content: bytes) -> str:
        """Send DATA and the content. Return the last reply, which is that to DATA if it is not 354."""
        reply = self.ask("DATA")
        if not reply.startswith("354"):
            return reply
        self.send(dot_stuff(content))
        return self.reply()

    def deliver(self, content: bytes, *recipients: str, sender: str = "sender@client.example") -> str:
        """Do a whole transaction. Return the first reply that refuses something, or else the last."""
        for reply in self.begin(*recipients, sender=sender):
            if not reply.startswith("250"):
                return reply
        return self.content(content)

    def close(self) -> None:
        """Close the connection without QUIT."""
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
