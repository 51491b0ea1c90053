"""The kinds of conversation that clients have with the server, by name.

A conversation is a function of a `Mailer`. It takes deliveries from it, opens a connection and checks every reply; it
raises ConnectionLost and UnexpectedReply. It does not know of processes, threads, or other conversations.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from gsmtp.soak.accounts import PASSWORD, RAISES, RAISES_LATER, SENDER, SLEEPS, UNKNOWN, USER
from gsmtp.soak.mailer import UNSURE, Mailer, Security
from gsmtp.soak.smtp import SMTPConnection

_BROKEN_CHUNK = 30_000  # octets

Conversation = Callable[[Mailer], None]


def _one_by_one(mailer: Mailer, count: int, security: Security = "plain") -> None:
    deliveries = mailer.take(count, None)
    if deliveries:
        with mailer.open(security) as connection:
            for delivery in deliveries:
                mailer.deliver(connection, delivery)
            connection.quit()


def plain(mailer: Mailer) -> None:
    """A message in a connection of its own."""
    _one_by_one(mailer, 1)


def kept(mailer: Mailer) -> None:
    """Ten messages in a connection."""
    _one_by_one(mailer, 10)


def starttls(mailer: Mailer) -> None:
    """Two messages under STARTTLS."""
    _one_by_one(mailer, 2, "starttls")


def implicit_tls(mailer: Mailer) -> None:
    """Two messages under TLS from the first octet."""
    _one_by_one(mailer, 2, "implicit")


def pipelining(mailer: Mailer) -> None:
    """Five messages, each command sent as early as RFC 2920 allows."""
    deliveries = mailer.take(5, None)
    if not deliveries:
        return
    commands = [mailer.mail_command(each) + mailer.rcpt_command(each) + b"DATA\r\n" for each in deliveries]
    with mailer.open() as connection:
        connection.send(commands[0])
        for delivery, following in zip(deliveries, [*commands[1:], b"QUIT\r\n"], strict=True):
            connection.expect(b"250", b"250", b"354")
            mailer.send_content(connection, delivery, following)
            mailer.read_result(connection, delivery)
        connection.expect(b"221")


def chunking(mailer: Mailer) -> None:
    """Three messages by BDAT, in two chunks each, pipelined."""
    deliveries = mailer.take(3, None)
    if not deliveries:
        return
    with mailer.open() as connection:
        for delivery in deliveries:
            if mailer.mails.entries[delivery.mail].stuffed:
                mailer.deliver(connection, delivery)
                continue
            field, body = mailer.id_field(delivery), mailer.mails.wire_form(delivery.mail)[:-3]
            delivery.state = UNSURE
            connection.send(
                b"".join(
                    (mailer.mail_command(delivery), mailer.rcpt_command(delivery), b"BDAT %d\r\n" % len(field), field,
                     b"BDAT %d LAST\r\n" % len(body), body)
                )
            )  # fmt: skip
            connection.expect(b"250", b"250", b"250")
            mailer.read_result(connection, delivery)
        connection.quit()


def auth(mailer: Mailer) -> None:
    """A login by PLAIN or LOGIN, and two messages."""
    deliveries = mailer.take(2, None)
    if not deliveries:
        return
    with mailer.open("starttls") as connection:
        if mailer.rng.random() < 0.5:
            connection.command(b"AUTH PLAIN " + base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()), b"235")
        else:
            connection.command(b"AUTH LOGIN", b"334")
            connection.command(base64.b64encode(USER.encode()), b"334")
            connection.command(base64.b64encode(PASSWORD.encode()), b"235")
        for delivery in deliveries:
            mailer.deliver(connection, delivery)
        connection.quit()


def auth_bad(mailer: Mailer) -> None:
    """Logins with a wrong password, from one of 16 addresses: the server counts failures by address."""
    source = f"127.0.2.{mailer.rng.randrange(1, 17)}"
    with mailer.open("starttls", source) as connection:
        connection.command(b"AUTH PLAIN " + base64.b64encode(f"\0{USER}\0guess{mailer.rng.random()}".encode()), b"535")
        connection.command(b"AUTH PLAIN =", b"501")
        connection.quit()


def refused_rcpt(mailer: Mailer) -> None:
    """A transaction whose only recipient is refused, and RSET; then one with a refused and an accepted recipient."""
    deliveries = mailer.take(1, None)
    if not deliveries:
        return
    (delivery,) = deliveries
    with mailer.open() as connection:
        unknown = b"RCPT TO:<%b@here.example>\r\n" % UNKNOWN.encode()
        connection.send(mailer.mail_command(delivery) + unknown + b"DATA\r\n")
        connection.expect(b"250", b"550", b"5")
        connection.command(b"RSET", b"250")
        connection.send(mailer.mail_command(delivery) + unknown + mailer.rcpt_command(delivery))
        connection.expect(b"250", b"550", b"250")
        connection.command(b"DATA", b"354")
        mailer.send_content(connection, delivery)
        mailer.read_result(connection, delivery)
        connection.quit()


def reset_in_data(mailer: Mailer) -> None:
    """The connection is reset in the middle of the content."""
    deliveries = mailer.take(1, None)
    if not deliveries:
        return
    (delivery,) = deliveries
    connection = mailer.open()
    connection.send(mailer.mail_command(delivery) + mailer.rcpt_command(delivery) + b"DATA\r\n")
    connection.expect(b"250", b"250", b"354")
    body = mailer.mails.wire_form(delivery.mail)
    connection.send(mailer.id_field(delivery))
    connection.send(body[: min(len(body) // 2, _BROKEN_CHUNK * mailer.rng.randint(1, 20))])
    connection.abort()


def vanished(mailer: Mailer) -> None:
    """The client closes without QUIT: before the banner, after EHLO, in a transaction, or after the content."""
    where = mailer.rng.randrange(4)
    if where == 0:
        SMTPConnection(mailer.target.plain, mailer.target.timeout).close()
        return
    if where == 1:
        mailer.open().close()
        return
    deliveries = mailer.take(1, None)
    if not deliveries:
        return
    (delivery,) = deliveries
    connection = mailer.open()
    connection.send(mailer.mail_command(delivery) + mailer.rcpt_command(delivery) + b"DATA\r\n")
    if where == 3:
        connection.expect(b"250", b"250", b"354")
        mailer.send_content(connection, delivery)
    connection.close()


def hook_exception(mailer: Mailer) -> None:
    """Hooks raise an exception: on_mail, on_rcpt and on_message. The client gets 451 each time."""
    deliveries = mailer.take(1, None)
    if not deliveries:
        return
    (delivery,) = deliveries
    with mailer.open() as connection:
        connection.command(f"MAIL FROM:<{RAISES}@client.example>".encode(), b"451")
        connection.send(mailer.mail_command(delivery))
        connection.expect(b"250")
        connection.command(f"RCPT TO:<{RAISES}@here.example>".encode(), b"451")
        connection.command(f"RCPT TO:<{RAISES_LATER}@here.example>".encode(), b"250")
        connection.command(b"DATA", b"354")
        mailer.send_content(connection, delivery)
        mailer.read_result(connection, delivery, b"451")
        connection.quit()


def hook_deadline(mailer: Mailer) -> None:
    """A hook does not return, and is ended at its deadline."""
    with mailer.open() as connection:
        connection.command(f"MAIL FROM:<{SENDER}>".encode(), b"250")
        connection.command(f"RCPT TO:<{SLEEPS}@here.example>".encode(), b"451")
        connection.quit()


def large(mailer: Mailer) -> None:
    """One of the largest messages, up to 5 MB."""
    deliveries = mailer.take(1, mailer.mails.largest)
    if deliveries:
        with mailer.open() as connection:
            mailer.deliver(connection, deliveries[0])
            connection.quit()


def chatter(mailer: Mailer) -> None:
    """Commands outside a transaction, some of them unknown or out of order."""
    with mailer.open() as connection:
        connection.send(b"NOOP\r\nVRFY user\r\nHELP\r\nRSET\r\nMAIL FROM:<a@b>\r\nRSET\r\nXYZZY 1\r\nRCPT TO:<a@b>\r\n")
        connection.expect(b"250", b"252", b"2", b"250", b"250", b"250", b"50", b"503")
        connection.quit()


CONVERSATIONS: dict[str, Conversation] = {
    each.__name__: each
    for each in (
        plain, kept, pipelining, chunking, starttls, implicit_tls, auth, auth_bad, refused_rcpt, reset_in_data,
        vanished, hook_exception, hook_deadline, large, chatter,
    )
}  # fmt: skip
# The weights of a mixed run: how many of a hundred sessions.
MIX: dict[str, float] = {
    "plain": 25, "kept": 14, "pipelining": 18, "chunking": 6, "starttls": 8, "implicit_tls": 6, "auth": 4,
    "auth_bad": 2, "refused_rcpt": 5, "reset_in_data": 3, "vanished": 4, "hook_exception": 3, "chatter": 2,
}  # fmt: skip
# Conversations that need the soak's own handler, and those that need TLS.
NEED_OWN_HANDLER = frozenset(("auth", "auth_bad", "refused_rcpt", "hook_exception", "hook_deadline"))
NEED_TLS = frozenset(("starttls", "implicit_tls", "auth", "auth_bad"))
