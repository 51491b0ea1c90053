"""The kinds of conversation that clients have with the server, by name.

A conversation takes letters from its post, and marks on each how far it came: what was answered 250 must be there once,
what was refused or broken off must not, and of what had no answer nobody can say. It expects each reply; another one is
a Surprise. Must not know: processes, threads, how many conversations there are.
"""

from __future__ import annotations

import base64
import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gsmtp.soak.agreed import PASSWORD, RAISES, RAISES_LATER, RECIPIENT, SENDER, SLEEPS, UNKNOWN, USER
from gsmtp.soak.mail import ID_FIELD, Bag
from gsmtp.soak.wire import Surprise, Wire

ABSENT, UNSURE, STORED = "-", "?", "+"
_SEND_WHOLE = 65536  # octets that are joined for one write; above, copying costs more than a second write
_BROKEN_CHUNK = 30_000
Opening = Literal["plain", "starttls", "implicit"]


class Letter:
    """One message to be sent: which mail, under which id, and what became of it."""

    __slots__ = ("id", "mail", "state")

    def __init__(self, id: str, mail: int) -> None:
        self.id = id
        self.mail = mail
        self.state = ABSENT


@dataclass(frozen=True)
class Route:
    """Where the server is and what clients say there. `tls`: "never", "mixed" or "always"."""

    plain: tuple[str, int]
    implicit: tuple[str, int] | None
    tls: str
    sender: str
    recipient: str
    patience: float


class Post:
    """What a conversation works with. `take` gives the next letters, fewer or none when that was all."""

    def __init__(
        self, route: Route, bag: Bag, dice: random.Random, take: Callable[[int, Sequence[int] | None], list[Letter]]
    ) -> None:
        self.route = route
        self.bag = bag
        self.dice = dice
        self.take = take
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        self._sender, self._recipient = route.sender.encode(), route.recipient.encode()

    def open(self, opening: Opening = "plain", source: str = "") -> Wire:
        """A connection that has said EHLO. Without TLS in the route it is a plain one; with TLS always, never that."""
        route = self.route
        if route.tls == "never":
            opening = "plain"
        elif route.tls == "always" and opening == "plain":
            opening = self.dice.choice(("starttls", "implicit"))
        if opening == "implicit" and route.implicit is not None:
            wire = Wire(route.implicit, route.patience, source)
            wire.secure(self._context)
        else:
            wire = Wire(route.plain, route.patience, source)
        wire.expect(b"220")
        wire.ask(b"EHLO client.example", b"250")
        if opening == "starttls":
            wire.ask(b"STARTTLS", b"220")
            wire.secure(self._context)
            wire.ask(b"EHLO client.example", b"250")
        return wire

    def mail_command(self, letter: Letter) -> bytes:
        """MAIL with what this mail needs."""
        entry = self.bag.entries[letter.mail]
        size = entry.size + len(self.head(letter))
        more = b" BODY=8BITMIME" if entry.eight_bit else b""
        if entry.smtputf8:
            more += b" SMTPUTF8"
        return b"MAIL FROM:<%b> SIZE=%d%b\r\n" % (self._sender, size, more)

    def rcpt_command(self, letter: Letter) -> bytes:
        """RCPT for where mail is taken; with SMTPUTF8 such an address now and then."""
        if self.bag.entries[letter.mail].smtputf8 and self.route.recipient == RECIPIENT:
            return "RCPT TO:<jürgen@bücher.example>\r\n".encode()
        return b"RCPT TO:<%b>\r\n" % self._recipient

    def head(self, letter: Letter) -> bytes:
        """What stands before the mail."""
        return b"%b%b\r\n" % (ID_FIELD, letter.id.encode())

    def content(self, wire: Wire, letter: Letter, behind: bytes = b"") -> None:
        """Send the content, and in the same write what comes behind it. The letter may have arrived."""
        head, body = self.head(letter), self.bag.wire(letter.mail)
        letter.state = UNSURE
        if len(body) <= _SEND_WHOLE:
            wire.send(b"".join((head, body, behind)))
            return
        wire.send(head)
        wire.send(body)
        if behind:
            wire.send(behind)

    def deliver(self, wire: Wire, letter: Letter) -> None:
        """One transaction, command by command."""
        wire.send(self.mail_command(letter))
        wire.expect(b"250")
        wire.send(self.rcpt_command(letter))
        wire.expect(b"250")
        wire.ask(b"DATA", b"354")
        self.content(wire, letter)
        self.stored(wire, letter)

    def stored(self, wire: Wire, letter: Letter, code: bytes = b"250") -> None:
        """Take the reply to the content. A refusal that is not expected says that it is not there."""
        reply = wire.reply()
        letter.state = STORED if reply.startswith(b"250") else ABSENT
        if not reply.startswith(code):
            raise Surprise(f"{reply.decode(errors='replace')} (and not {code.decode()})")


Conversation = Callable[[Post], None]


def _leave(wire: Wire) -> None:
    wire.ask(b"QUIT", b"221")
    wire.close()


def _one_by_one(post: Post, count: int, opening: Opening = "plain") -> None:
    letters = post.take(count, None)
    if letters:
        with post.open(opening) as wire:
            for letter in letters:
                post.deliver(wire, letter)
            _leave(wire)


def plain(post: Post) -> None:
    """A message in a connection of its own."""
    _one_by_one(post, 1)


def kept(post: Post) -> None:
    """Ten messages in a connection."""
    _one_by_one(post, 10)


def starttls(post: Post) -> None:
    """Two messages under STARTTLS."""
    _one_by_one(post, 2, "starttls")


def implicit_tls(post: Post) -> None:
    """Two messages under TLS from the first octet."""
    _one_by_one(post, 2, "implicit")


def pipelining(post: Post) -> None:
    """Five messages, each command sent as early as RFC 2920 lets it be."""
    letters = post.take(5, None)
    if not letters:
        return
    openings = [post.mail_command(each) + post.rcpt_command(each) + b"DATA\r\n" for each in letters]
    with post.open() as wire:
        wire.send(openings[0])
        for letter, behind in zip(letters, [*openings[1:], b"QUIT\r\n"], strict=True):
            wire.expect(b"250", b"250", b"354")
            post.content(wire, letter, behind)
            post.stored(wire, letter)
        wire.expect(b"221")


def chunking(post: Post) -> None:
    """Three messages by BDAT, in two chunks each, pipelined."""
    letters = post.take(3, None)
    if not letters:
        return
    with post.open() as wire:
        for letter in letters:
            if post.bag.entries[letter.mail].stuffed:
                post.deliver(wire, letter)
                continue
            head, body = post.head(letter), post.bag.wire(letter.mail)[:-3]
            letter.state = UNSURE
            wire.send(
                b"".join(
                    (post.mail_command(letter), post.rcpt_command(letter), b"BDAT %d\r\n" % len(head), head,
                     b"BDAT %d LAST\r\n" % len(body), body)
                )
            )  # fmt: skip
            wire.expect(b"250", b"250", b"250")
            post.stored(wire, letter)
        _leave(wire)


def auth(post: Post) -> None:
    """A login by PLAIN or LOGIN, and two messages."""
    letters = post.take(2, None)
    if not letters:
        return
    with post.open("starttls") as wire:
        if post.dice.random() < 0.5:
            wire.ask(b"AUTH PLAIN " + base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()), b"235")
        else:
            wire.ask(b"AUTH LOGIN", b"334")
            wire.ask(base64.b64encode(USER.encode()), b"334")
            wire.ask(base64.b64encode(PASSWORD.encode()), b"235")
        for letter in letters:
            post.deliver(wire, letter)
        _leave(wire)


def auth_bad(post: Post) -> None:
    """Wrong passwords, from one of some addresses: the server counts for each."""
    source = f"127.0.2.{post.dice.randrange(1, 17)}"
    with post.open("starttls", source) as wire:
        wire.ask(b"AUTH PLAIN " + base64.b64encode(f"\0{USER}\0guess{post.dice.random()}".encode()), b"535")
        wire.ask(b"AUTH PLAIN =", b"501")
        _leave(wire)


def refused_rcpt(post: Post) -> None:
    """Nobody known and RSET; then one who is known among others."""
    letters = post.take(1, None)
    if not letters:
        return
    (letter,) = letters
    with post.open() as wire:
        unknown = b"RCPT TO:<%b@here.example>\r\n" % UNKNOWN.encode()
        wire.send(post.mail_command(letter) + unknown + b"DATA\r\n")
        wire.expect(b"250", b"550", b"5")
        wire.ask(b"RSET", b"250")
        wire.send(post.mail_command(letter) + unknown + post.rcpt_command(letter))
        wire.expect(b"250", b"550", b"250")
        wire.ask(b"DATA", b"354")
        post.content(wire, letter)
        post.stored(wire, letter)
        _leave(wire)


def reset_in_data(post: Post) -> None:
    """The connection is reset in the middle of the content."""
    letters = post.take(1, None)
    if not letters:
        return
    (letter,) = letters
    wire = post.open()
    wire.send(post.mail_command(letter) + post.rcpt_command(letter) + b"DATA\r\n")
    wire.expect(b"250", b"250", b"354")
    body = post.bag.wire(letter.mail)
    wire.send(post.head(letter))
    wire.send(body[: min(len(body) // 2, _BROKEN_CHUNK * post.dice.randint(1, 20))])
    wire.reset()


def vanished(post: Post) -> None:
    """The client closes without a word: before the banner, amid a transaction, or with the 250 still to come."""
    where = post.dice.randrange(4)
    if where == 0:
        Wire(post.route.plain, post.route.patience).close()
        return
    if where == 1:
        post.open().close()
        return
    letters = post.take(1, None)
    if not letters:
        return
    (letter,) = letters
    wire = post.open()
    wire.send(post.mail_command(letter) + post.rcpt_command(letter) + b"DATA\r\n")
    if where == 3:
        wire.expect(b"250", b"250", b"354")
        post.content(wire, letter)
    wire.close()


def hook_exception(post: Post) -> None:
    """Hooks raise: at MAIL, at RCPT, and with the message there. The client is asked to come again each time."""
    letters = post.take(1, None)
    if not letters:
        return
    (letter,) = letters
    with post.open() as wire:
        wire.ask(f"MAIL FROM:<{RAISES}@client.example>".encode(), b"451")
        wire.send(post.mail_command(letter))
        wire.expect(b"250")
        wire.ask(f"RCPT TO:<{RAISES}@here.example>".encode(), b"451")
        wire.ask(f"RCPT TO:<{RAISES_LATER}@here.example>".encode(), b"250")
        wire.ask(b"DATA", b"354")
        post.content(wire, letter)
        post.stored(wire, letter, b"451")
        _leave(wire)


def hook_deadline(post: Post) -> None:
    """A hook does not come back, and is ended at its deadline."""
    with post.open() as wire:
        wire.ask(f"MAIL FROM:<{SENDER}>".encode(), b"250")
        wire.ask(f"RCPT TO:<{SLEEPS}@here.example>".encode(), b"451")
        _leave(wire)


def large(post: Post) -> None:
    """A message of the largest kind, up to 5 MB."""
    letters = post.take(1, post.bag.largest)
    if letters:
        with post.open() as wire:
            post.deliver(wire, letters[0])
            _leave(wire)


def chatter(post: Post) -> None:
    """Commands that bring no mail, and some that do not exist."""
    with post.open() as wire:
        wire.send(b"NOOP\r\nVRFY user\r\nHELP\r\nRSET\r\nMAIL FROM:<a@b>\r\nRSET\r\nXYZZY 1\r\nRCPT TO:<a@b>\r\n")
        wire.expect(b"250", b"252", b"2", b"250", b"250", b"250", b"50", b"503")
        _leave(wire)


CONVERSATIONS: dict[str, Conversation] = {
    each.__name__: each
    for each in (
        plain, kept, pipelining, chunking, starttls, implicit_tls, auth, auth_bad, refused_rcpt, reset_in_data,
        vanished, hook_exception, hook_deadline, large, chatter,
    )
}  # fmt: skip
# How many of a hundred sessions, where everything is mixed.
MIX: dict[str, float] = {
    "plain": 25, "kept": 14, "pipelining": 18, "chunking": 6, "starttls": 8, "implicit_tls": 6, "auth": 4,
    "auth_bad": 2, "refused_rcpt": 5, "reset_in_data": 3, "vanished": 4, "hook_exception": 3, "chatter": 2,
}  # fmt: skip
# These need the soak's own handler, or TLS.
OWN = frozenset(("auth", "auth_bad", "refused_rcpt", "hook_exception", "hook_deadline"))
SECURE = frozenset(("starttls", "implicit_tls", "auth", "auth_bad"))
