"""Conversations as plain text files, and two ways to hold one: in memory, and with a server on the network.

A file in tests/dialogues reads from top to bottom:

    # Words about it, and:
    # option: max_message_size = 1000       a setting of the listener, as in TOML; bind too, for LMTP
    # handler: Plain                        a class of scripted.py; Scripted when none is named
    C: NOOP                                 the client sends this and CRLF
    R: NOOP\\nQUIT\\r\\n                       the client sends these very octets; \\r \\n \\t \\0 \\xhh \\\\
    --                                      what follows goes in another packet
    S: 250 2.0.0 Ok                         the server says this line; "..." at its end stands for any rest
    S: (any)                                one reply, whatever it is; for what EHLO announces
    S: 250 (any)                            the same, but its code is 250
    S: (closed)                             the server closes the connection
    (TLS)                                   now both do the handshake that STARTTLS is for
    = <a@example.com> <b@example.com>: Hi\\r\\n    the next message that the handler took, with its content

Client lines that follow each other go in one packet. `{x*80}` stands for 80 times x. `C x3:` and `S x3:` stand for
three such lines, `{n}` in them for 1, 2, 3. The server must say the lines listed before the client goes on, and
nothing else.

A listener with `tls`, or whose bind is smtps://, has a certificate; with `client_ca` the client shows one, that of
alice@example.org. In memory there is no TLS: the session is told that it has begun.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import dialogues.scripted as scripted

from gsmtp import settings
from gsmtp.counters import Counters
from gsmtp.net.timer import DeadlineTimer
from gsmtp.protocol.envelope import Envelope, Session
from gsmtp.protocol.server import events
from gsmtp.protocol.server.extensions import ExtensionSet
from gsmtp.protocol.server.options import Options
from gsmtp.protocol.server.session import ServerSession
from gsmtp.server.dispatcher import REACTIONS, Action, Dispatcher
from gsmtp.server.hooks import Hooks
from gsmtp.server.listener import ListenerContext
from gsmtp.server.loader import claimed_extensions
from gsmtp.server.runner import HookRunner
from gsmtp.server.settings import SpoolSettings, Timeouts

DIRECTORY = Path(__file__).parent / "dialogues"
HOSTNAME = "mx.example.org"
_LINE = re.compile(r"(?P<who>[CSR])(?: x(?P<times>\d+))?:(?: (?P<text>.*))?")
_MESSAGE = re.compile(r"= <(?P<sender>.*?)> (?P<to><.*?>): ?(?P<content>.*)")
_REPEAT = re.compile(r"\{([^{}]+)\*(\d+)\}")
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)")
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}

ANY = "(any)"
Message = tuple[str, str, bytes]


@dataclass
class Exchange:
    """What the client sends, packet by packet, what the server then says, and the messages it has taken by then.

    `tls`: a handshake follows.
    """

    packets: list[bytes] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    closed: bool = False
    tls: bool = False


@dataclass
class Script:
    """One file."""

    name: str
    options: dict[str, Any]
    handler: str
    exchanges: list[Exchange]


def scripts() -> list[Script]:
    """All of them."""
    return [parse(path.stem, path.read_text()) for path in sorted(DIRECTORY.glob("*.txt"))]


def parse(name: str, text: str) -> Script:
    """ValueError, with the line, for what is no dialogue."""
    script = Script(name, {}, "Scripted", [Exchange()])
    fresh = False
    for line in text.splitlines():
        here = script.exchanges[-1]
        if line.startswith("# option: "):
            script.options.update(tomllib.loads(line.removeprefix("# option: ")))
        elif line.startswith("# handler: "):
            script.handler = line.removeprefix("# handler: ")
        elif not line or line.startswith("#"):
            continue
        elif line == "--":
            fresh = True
        elif line == "S: (closed)":
            here.closed = True
        elif line == "(TLS)":
            here.tls = True
            script.exchanges.append(Exchange())
        elif match := _MESSAGE.fullmatch(line):
            to = match["to"].replace(" ", "").replace("><", ",").strip("<>")
            here.messages.append((match["sender"], to, _octets(match["content"])))
        elif match := _LINE.fullmatch(line):
            each = [(match["text"] or "").replace("{n}", str(n + 1)) for n in range(int(match["times"] or 1))]
            if match["who"] == "S":
                here.replies += [_repeated(text) for text in each]
                continue
            if here.replies or here.closed or here.messages:
                here = Exchange()
                script.exchanges.append(here)
                fresh = True
            if match["who"] == "C":
                data = b"".join(_repeated(text).encode() + b"\r\n" for text in each)
            else:
                data = b"".join(map(_octets, each))
            if fresh or not here.packets:
                here.packets.append(b"")
                fresh = False
            here.packets[-1] += data
        else:
            raise ValueError(f"{name}: {line}")
    return script


def _repeated(text: str) -> str:
    return _REPEAT.sub(lambda match: match[1] * int(match[2]), text)


def _octets(text: str) -> bytes:
    def escaped(match: re.Match[str]) -> str:
        return chr(int(match[1][1:], 16)) if match[1][0] == "x" else _ESCAPES[match[1]]

    return _ESCAPE.sub(escaped, _repeated(text)).encode("latin-1")


def agree(wanted: list[str], said: list[str]) -> bool:
    """Whether the server said what was wanted of it."""
    left = list(said)
    for want in wanted:
        if not left:
            return False
        line = left.pop(0)
        if want.endswith(ANY):
            if not line.startswith(want.removesuffix(ANY).strip()):
                return False
            while line[3:4] == "-" and left:
                line = left.pop(0)
        elif not (line.startswith(want[:-3]) if want.endswith("...") else line == want):
            return False
    return not left


class _Log:
    """Keeps nothing but why AUTH failed."""

    enabled = False

    def __init__(self) -> None:
        self.reasons: set[str] = set()

    def event(self, name: str, /, **fields: Any) -> None:
        if "why" in fields:
            self.reasons.add(fields["why"])


def options_of(script: Script, auth_hooks: frozenset[str] = frozenset()) -> Options:
    """The listener's settings as the protocol names them, with the defaults that settings have."""
    listen = settings.ListenerSettings(**{"bind": "smtp://127.0.0.1:0", "hostname": HOSTNAME, **script.options})
    return settings.protocol_options(listen, auth_hooks)


@dataclass
class Facts:
    """What the protocol asks of `session.tls`."""

    peer: dict[str, Any]
    channel_bindings: dict[str, bytes] = field(default_factory=lambda: {"tls-server-end-point": b"a hash"})


TIMER: DeadlineTimer[HookRunner] = DeadlineTimer()


class Setup:
    """What conversations of one script have in common: the handler and the context. One at a time may be held."""

    def __init__(self, script: Script) -> None:
        kind = getattr(scripted, script.handler)
        self.messages: list[Message] = []
        self.ids = count(1)
        self.log = _Log()

        def store(_: Any, envelope: Envelope, content: bytes) -> None:
            to = ",".join(recipient.address for recipient in envelope.recipients)
            self.messages.append((envelope.sender, to, content))

        def new_id() -> str:
            return f"ID{next(self.ids)}"

        self.hooks = hooks = Hooks(type(script.handler, (kind,), {"store": store})(), new_id)
        options = options_of(script, hooks.auth)
        self.facts = Facts(
            {"subject": ((("commonName", "alice@example.org"),),)} if "client_ca" in script.options else {}
        )
        self.implicit_tls = script.options.get("bind", "").startswith("smtps:")
        self.trusted = "xclient" in script.options
        self.context = ListenerContext(
            bind="smtp://127.0.0.1:0",
            options=options,
            asks=hooks.asks,
            admission=None,
            extensions=ExtensionSet(options, claimed=claimed_extensions(hooks)),
            timeouts=Timeouts(auth_failure_delay=0.0),
            hooks=hooks,
            log=self.log,  # type: ignore[arg-type]
            counters=Counters(),
            new_id=new_id,
            spool=SpoolSettings(spool_memory=1000),
            tls=None,
            implicit_tls=self.implicit_tls,
            hook_timer=TIMER,
        )


class InMemory:
    """The protocol, the dialogue with the handler, and no network: what is not sent yet is a list of pieces."""

    def __init__(self, script: Script, setup: Setup | None = None) -> None:
        """`setup`, when the script's is made already."""
        self._setup = setup = setup or Setup(script)
        setup.ids = count(1)
        self.messages = setup.messages = []
        session = Session("S1", ("192.0.2.1", 49152), ("192.0.2.2", 25), "smtp")
        session.trusted = setup.trusted
        context = setup.context
        protocol = ServerSession(context.options, context.extensions, session, context.new_id, context.asks)
        self.dispatcher = Dispatcher(context, session, protocol, HookRunner(context, "S1", protocol, None))
        self._pieces: Iterator[bytes] = iter(())
        self._secured: list[bytes] = []
        self._said: list[bytes] = []
        self._steps = self._fed = 0
        self.closed = self.secure = False
        if setup.implicit_tls:
            self._start_tls()

    def _start_tls(self) -> None:
        """What was sent in clear is gone, and the handshake done."""
        self._pieces, self._secured = iter(self._secured), []
        self.secure = True
        self.dispatcher.protocol.tls_started(self._setup.facts)
        refusal = self.dispatcher.tls_started()
        if refusal is not None:
            self.dispatcher.protocol.shut_down(refusal)

    def _act(self, action: Action, event: events.Event) -> None:
        # Nobody waits here, and every address may come in.
        if action is Action.START_TLS:
            self._start_tls()
        elif action is Action.FLUSH:
            self._said.append(self.dispatcher.protocol.data_to_send())
            assert REACTIONS[type(event)](self.dispatcher, event) is None

    def converse(self, pieces: Iterable[bytes], secured: Iterable[bytes] = ()) -> bytes:
        """Send these, and get all that the server says. An `on_data` that wants more then goes on in the next call.

        `secured` is sent once TLS has begun. AssertionError when the server does more than its input can ask for.
        """
        self._pieces = iter(pieces)
        self._secured = list(secured)
        protocol = self.dispatcher.protocol
        while not self.closed:
            event = protocol.next_event()
            self._steps += 1
            assert self._steps <= 4 * self._fed + 20, "it does not come to an end"
            if event is events.CLOSED:
                self.dispatcher.refuse_content()
                self.closed = True
            elif event is events.NEED_DATA:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._fed += len(piece) + 1
                protocol.receive(piece)
            else:
                action = REACTIONS[type(event)](self.dispatcher, event)
                if action is not None:
                    self._act(action, event)
        said, self._said = b"".join([*self._said, protocol.data_to_send()]), []
        return said

    def end(self) -> None:
        """The client is gone: free what is held."""
        self.dispatcher.lose_content("the session has ended")
        self.dispatcher.end("end of the test")


def converse_in_memory(script: Script, bytewise: bool) -> tuple[list[str], set[str]]:
    """Hold the conversation with each packet whole, or octet by octet. AssertionError where the server differs.

    What the server has said, and why AUTH has failed.
    """
    setup = Setup(script)
    memory = InMemory(script, setup)
    heard: list[str] = []
    secure = memory.secure
    try:
        for exchange in script.exchanges:
            pieces = exchange.packets
            if bytewise:
                pieces = [packet[at : at + 1] for packet in pieces for at in range(len(packet))]
            said = memory.converse(pieces).decode("ascii").split("\r\n")
            assert said.pop() == ""
            heard += said
            assert agree(exchange.replies, said), f"wanted {exchange.replies}, got {said}"
            assert memory.messages == exchange.messages
            assert memory.closed == exchange.closed
            secure = secure or exchange.tls
            assert memory.secure == secure
            memory.messages.clear()
        return heard, setup.log.reasons
    finally:
        memory.end()


def converse_live(script: Script, port: int, store: Path, tls: ssl.SSLContext) -> None:
    """Hold the conversation with a server whose handler stores in `store`; `tls` is the client's, for where it is."""
    number = count(1)
    with ExitStack() as stack:

        def opened(sock: socket.socket) -> tuple[socket.socket, Any]:
            stack.enter_context(sock)
            return sock, stack.enter_context(sock.makefile("rb"))

        sock, file = opened(socket.create_connection(("127.0.0.1", port), timeout=20))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own = sock.getsockname()[1]
        if script.options.get("bind", "").startswith("smtps:"):
            sock, file = opened(tls.wrap_socket(sock, server_hostname=HOSTNAME))
        for exchange in script.exchanges:
            for at, packet in enumerate(exchange.packets):
                if at:
                    time.sleep(0.02)
                sock.sendall(packet)
            said: list[str] = []
            for want in exchange.replies:
                said.append(file.readline().decode("ascii").removesuffix("\r\n"))
                while want.endswith(ANY) and said[-1][3:4] == "-":
                    said.append(file.readline().decode("ascii").removesuffix("\r\n"))
            assert agree(exchange.replies, said), f"wanted {exchange.replies}, got {said}"
            for message in exchange.messages:
                place = store / f"{own}-{next(number)}"
                found = json.loads(place.read_text())
                assert (found["from"], found["to"], found["content"].encode("latin-1")) == message
                place.unlink()
            if exchange.tls:
                sock, file = opened(tls.wrap_socket(sock, server_hostname=HOSTNAME))
            if exchange.closed:
                assert file.read() == b""
        # Python's TLS cannot be closed in one direction.
        if not script.exchanges[-1].closed and not isinstance(sock, ssl.SSLSocket):
            sock.shutdown(socket.SHUT_WR)
            assert file.read() == b""
        assert not list(store.glob(f"{own}-*"))
