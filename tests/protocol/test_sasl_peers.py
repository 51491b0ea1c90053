"""Our side against others' code: smtplib over a real connection, and scramp."""

from __future__ import annotations

import smtplib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from exchanges import CONTEXT, Directory

from gsmtp.protocol.sasl import (
    MECHANISMS,
    Challenge,
    ClientContext,
    Failure,
    Response,
    ScramCredentials,
    Success,
    advance,
    decode,
    decode_initial,
    encode,
)

PASSWORD = "tanstaaf = tanstaaf"  # smtplib writes ASCII alone
PEOPLE = Directory({"tim@example.net": PASSWORD})


@contextmanager
def auth_server(name: str) -> Iterator[tuple[int, list[Success | Failure]]]:
    """A server that knows EHLO, AUTH and QUIT, for one connection; its port, and how the exchanges ended."""
    ends: list[Success | Failure] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            connection, _ = listener.accept()
            connection.settimeout(20)
            with connection, connection.makefile("rwb") as stream:

                def say(line: str) -> None:
                    stream.write(line.encode() + b"\r\n")
                    stream.flush()

                say("220 mx.example.net")
                for raw in stream:
                    verb, *arguments = raw.decode().split()
                    if verb.upper() == "EHLO":
                        say(f"250-mx.example.net\r\n250 AUTH {name}")
                    elif verb.upper() == "AUTH":
                        initial = decode_initial(arguments[1]) if len(arguments) > 1 else None
                        exchange = MECHANISMS[arguments[0].upper()].server(CONTEXT, initial)
                        step = advance(exchange)
                        while not isinstance(step, Success | Failure):
                            if isinstance(step, Challenge):
                                say(f"334 {encode(step.data)}")
                                step = advance(exchange, decode(stream.readline().rstrip(b"\r\n")))
                            else:
                                step = advance(exchange, PEOPLE.answer(step))
                        ends.append(step)
                        say("235 2.7.0 Ok" if isinstance(step, Success) else step.reply.encode().decode().rstrip())
                    else:
                        say("221 2.0.0 Bye")
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], ends
        finally:
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.parametrize("initial_response", [True, False])
@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_smtplib_logs_in(name: str, initial_response: bool) -> None:
    with auth_server(name) as (port, ends), smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.user, client.password = "tim@example.net", PASSWORD
        client.ehlo()
        method = getattr(client, "auth_" + name.lower().replace("-", "_"))
        code, _ = client.auth(name, method, initial_response_ok=initial_response)
        assert code == 235
    assert ends == [Success("tim@example.net")]


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_smtplib_is_refused(name: str) -> None:
    with auth_server(name) as (port, ends), smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError) as error:
            client.login("tim@example.net", "wrong")
        assert str(error.value).startswith("(535, b'5.7.8 ")
    assert len(ends) == 1 and isinstance(ends[0], Failure)


BINDING = ("tls-server-end-point", b"S" * 32)


@pytest.mark.parametrize("name", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize("password", ["pencil", "p\u00e9ncil\u00a0\u2168"])
@pytest.mark.parametrize("stored", [True, False])
def test_scramp_as_client(name: str, password: str, stored: bool) -> None:
    scramp = pytest.importorskip("scramp")
    plus = name.endswith("-PLUS")
    client = scramp.ScramClient([name], "user", password, channel_binding=BINDING if plus else None)
    context = replace(CONTEXT, channel_bindings=dict([BINDING]), offered=(name,))
    server = MECHANISMS[name].server(context, client.get_client_first().encode())
    advance(server)
    known = ScramCredentials.derive(password, iterations=5000) if stored else password
    challenge = advance(server, known)
    assert isinstance(challenge, Challenge)
    client.set_server_first(challenge.data.decode())
    verdict = advance(server, client.get_client_final().encode())
    assert isinstance(verdict, Challenge)
    client.set_server_final(verdict.data.decode())
    assert advance(server, b"") == Success("user")


@pytest.mark.parametrize("name", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize("password", ["pencil", "p\u00e9ncil\u00a0\u2168"])
def test_scramp_as_server(name: str, password: str) -> None:
    scramp = pytest.importorskip("scramp")
    plus = name.endswith("-PLUS")
    mechanism = scramp.ScramMechanism(name)
    known = mechanism.make_auth_info(password)
    server = mechanism.make_server(lambda user: known, channel_binding=BINDING if plus else None)
    bindings = dict([BINDING]) if plus else {}
    client = MECHANISMS[name].client(
        ClientContext(user="user", password=password, channel_bindings=bindings, offered=(name,))
    )
    first = advance(client)
    assert isinstance(first, Response) and first.data is not None
    server.set_client_first(first.data.decode())
    final = advance(client, server.get_server_first().encode())
    assert isinstance(final, Response) and final.data is not None
    server.set_client_final(final.data.decode())
    assert advance(client, server.get_server_final().encode()) == Response(b"")
    assert advance(client, None) is None


def test_scramp_derives_the_same_keys() -> None:
    scramp = pytest.importorskip("scramp")
    salt, stored_key, server_key, iterations = scramp.ScramMechanism("SCRAM-SHA-256").make_auth_info("pencil")
    ours = ScramCredentials.derive("pencil", salt=salt, iterations=iterations)
    assert ours == ScramCredentials(salt, iterations, stored_key, server_key)
