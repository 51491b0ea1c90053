"""TLS in both roles: our client against our server in one process, and each against openssl."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, Literal

import pytest
from certificates import MAIN, OTHER, Certificates, tool
from harness.transports import BIG, KINDS, WAIT, pairs, peer

from gsmtp.net.errors import ConnectionLost, ConnectionTimedOut, TlsFailed
from gsmtp.net.socket_transport import SocketTransport, connect
from gsmtp.net.tls import ClientTlsContext, TlsContext
from gsmtp.net.tls_settings import TlsSettings
from gsmtp.net.tls_transport import Tls, TlsTransport
from gsmtp.net.transport import ClearTransport

VERSIONS: list[Literal["1.2", "1.3"]] = ["1.2", "1.3"]


def server_context(certificates: Certificates, **more: Any) -> TlsContext:
    settings: dict[str, Any] = {
        "certfile": certificates.main.certfile,
        "keyfile": certificates.main.keyfile,
        "certificates": {OTHER: [certificates.other.certfile, certificates.other.keyfile]},
        **more,
    }
    return TlsContext(TlsSettings(**settings))


def client_context(certificates: Certificates, **more: Any) -> ClientTlsContext:
    return ClientTlsContext(**{"cafile": certificates.ca, **more})


def serving(
    context: TlsContext, then: Callable[[TlsTransport], object] = lambda secure: None
) -> Callable[[ClearTransport], Tls]:
    """A server that returns what the handshake has settled."""

    def serve(transport: ClearTransport) -> Tls:
        secure = context.wrap(transport)
        try:
            found = secure.handshake()
            then(secure)
            return found
        finally:
            secure.close()

    return serve


def echo(secure: TlsTransport) -> None:
    data = everything_of(secure)
    if not secure.write_some(data):
        secure.write_rest()


def everything_of(secure: TlsTransport) -> bytes:
    found = []
    while data := secure.read():
        found.append(data)
    return b"".join(found)


# Our two roles


@pairs
@pytest.mark.parametrize("version", VERSIONS)
def test_both_sides_settle_the_same(
    certificates: Certificates, ours: str, theirs: str, version: Literal["1.2", "1.3"]
) -> None:
    ciphers = "ECDHE+AESGCM"
    server = server_context(certificates, client_ca=certificates.ca, tls_ciphers=ciphers)
    own = {"certfile": certificates.client.certfile, "keyfile": certificates.client.keyfile}
    client = client_context(certificates, minimum=version, **own)
    if version == "1.2":
        server._default.maximum_version = ssl.TLSVersion.TLSv1_2
        for context, _ in server._named.values():
            context.maximum_version = ssl.TLSVersion.TLSv1_2
    for name, pair in {MAIN: certificates.main, OTHER: certificates.other}.items():
        with peer(theirs, serving(server, echo)) as (sock, result):
            secure = client.wrap(KINDS[ours](sock), name)
            here = secure.handshake()
            if not secure.write_some(b"hello"):
                secure.write_rest()
            secure.finish_writing()
            assert everything_of(secure) == b"hello"
            secure.close()
        (there,) = result
        assert isinstance(there, Tls)
        assert here.version == there.version == f"TLSv{version}"
        assert (here.cipher, here.bits) == (there.cipher, there.bits)
        assert here.server_name == there.server_name == name
        with open(pair.certfile, encoding="ascii") as file:
            assert here.server_der == here.peer_der == there.server_der == ssl.PEM_cert_to_DER_cert(file.read())
        assert here.channel_bindings == there.channel_bindings
        assert ("tls-unique" in here.channel_bindings) == (version == "1.2")
        assert common_name(here.peer) == name
        assert common_name(there.peer) == "alice@example.org"


def common_name(certificate: Mapping[str, Any]) -> str:
    found: dict[str, str] = dict(pair for group in certificate["subject"] for pair in group)
    return found["commonName"]


@pairs
def test_big_data_both_ways(certificates: Certificates, ours: str, theirs: str) -> None:
    with peer(theirs, serving(server_context(certificates), echo)) as (sock, result):
        secure = client_context(certificates).wrap(KINDS[ours](sock), MAIN)
        secure.handshake()
        if not secure.write_some(BIG):
            secure.write_rest()
        secure.finish_writing()
        assert everything_of(secure) == BIG
        secure.close()
    assert isinstance(result[0], Tls)


@pytest.mark.parametrize(
    ("pair", "name", "reason"),
    [
        ("main", OTHER + ".invalid", "Hostname mismatch"),
        ("expired", f"expired.{MAIN}", "certificate has expired"),
        ("stranger", "mallory@example.org", "unable to get local issuer certificate"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_verifies_the_server(certificates: Certificates, kind: str, pair: str, name: str, reason: str) -> None:
    shown = getattr(certificates, pair)
    server = server_context(certificates, certfile=shown.certfile, keyfile=shown.keyfile)
    with peer(kind, serving(server, everything_of)) as (sock, result):
        secure = client_context(certificates).wrap(KINDS[kind](sock), name)
        with pytest.raises(TlsFailed, match=f"^TLS handshake failed: CERTIFICATE_VERIFY_FAILED: {reason}"):
            secure.handshake()
        secure.close()
    # The server was told why: with TLS 1.3 after its own handshake.
    assert isinstance(result[0], ConnectionLost) and "ALERT" in str(result[0])
    # Opportunistic TLS takes it.
    with peer(kind, serving(server, everything_of)) as (sock, result):
        secure = client_context(certificates, verify=False).wrap(KINDS[kind](sock), name)
        found = secure.handshake()
        assert found.peer == {} and found.peer_der is not None
        secure.close()
    assert isinstance(result[0], Tls)


def test_a_client_trusts_the_systems_authorities_by_default(certificates: Certificates) -> None:
    with peer("blocking", serving(server_context(certificates), everything_of)) as (sock, _):
        secure = ClientTlsContext().wrap(KINDS["blocking"](sock), MAIN)
        with pytest.raises(TlsFailed, match="CERTIFICATE_VERIFY_FAILED"):
            secure.handshake()
        secure.close()


def test_an_ip_address_is_no_name(certificates: Certificates) -> None:
    with peer("blocking", serving(server_context(certificates), everything_of)) as (sock, _):
        secure = client_context(certificates).wrap(KINDS["blocking"](sock), "192.0.2.1")
        with pytest.raises(TlsFailed, match="IP address mismatch"):
            secure.handshake()
        secure.close()
    for name in ("", ".example", "a" * 300):
        with pytest.raises(ValueError):
            client_context(certificates).wrap(KINDS["blocking"](socket.socket()), name)


def test_versions_that_do_not_meet(certificates: Certificates) -> None:
    server = server_context(certificates)
    server._default.maximum_version = ssl.TLSVersion.TLSv1_2
    with peer("blocking", serving(server)) as (sock, result):
        secure = client_context(certificates, minimum="1.3").wrap(KINDS["blocking"](sock), MAIN)
        with pytest.raises(TlsFailed, match="VERSION"):
            secure.handshake()
        secure.close()
    assert isinstance(result[0], TlsFailed)


def test_a_server_that_is_silent(certificates: Certificates) -> None:
    here, there = socket.socketpair()
    with there:
        transport = SocketTransport(here, monotonic() + 0.1)
        secure = client_context(certificates).wrap(transport, MAIN)
        with pytest.raises(ConnectionTimedOut):
            secure.handshake()
        secure.close()


@pytest.mark.parametrize("answer", [b"", b"220 hello\r\n", bytes(range(256))])
def test_a_server_that_speaks_no_tls(certificates: Certificates, answer: bytes) -> None:
    def serve(transport: ClearTransport) -> None:
        transport.read()
        transport.write(answer)

    with peer("blocking", serve) as (sock, _):
        secure = client_context(certificates).wrap(KINDS["blocking"](sock), MAIN)
        with pytest.raises(TlsFailed):
            secure.handshake()
        secure.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"cafile": "nothing.pem"},
        {"certfile": "nothing.pem"},
        {"certfile": "main", "keyfile": "nothing.pem"},
        {"ciphers": "NONE-SUCH"},
    ],
    ids=str,
)
def test_what_is_wrong_is_named(certificates: Certificates, wrong: dict[str, str]) -> None:
    given = {key: certificates.main.certfile if value == "main" else value for key, value in wrong.items()}
    with pytest.raises(ValueError, match=next(reversed(wrong.values()))):
        ClientTlsContext(**given)  # type: ignore[arg-type]


# Others' programs


@contextmanager
def s_server(certificates: Certificates, *options: str) -> Iterator[tuple[str, int]]:
    """`openssl s_server`, which sends back each line reversed."""
    base = [tool("openssl"), "s_server", "-accept", "127.0.0.1:0", "-rev", "-naccept", "1"]
    base += ["-cert", certificates.main.certfile, "-key", certificates.main.keyfile]
    process = subprocess.Popen(
        [*base, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.match(rb"ACCEPT (?:127\.0\.0\.1|\[.*\]):(\d+)", line):
                yield "127.0.0.1", int(match[1])
                break
        else:
            pytest.fail("openssl s_server did not start")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("version", VERSIONS)
def test_our_client_and_openssl(certificates: Certificates, version: str) -> None:
    only = {"1.2": "-tls1_2", "1.3": "-tls1_3"}[version]
    own = {"certfile": certificates.client.certfile, "keyfile": certificates.client.keyfile}
    with s_server(certificates, "-Verify", "1", "-CAfile", certificates.ca, only) as address:
        secure = client_context(certificates, **own).wrap(connect(address, monotonic() + WAIT), MAIN)
        found = secure.handshake()
        assert found.version == f"TLSv{version}"
        secure.write_some(b"hello\n")
        assert secure.read() == b"olleh\n"
        secure.close()


def test_our_client_without_the_certificate_that_openssl_wants(certificates: Certificates) -> None:
    with s_server(certificates, "-Verify", "1", "-verify_return_error", "-CAfile", certificates.ca) as address:
        secure = client_context(certificates).wrap(connect(address, monotonic() + WAIT), MAIN)
        # With TLS 1.3 the client hears of it after its own handshake.
        with pytest.raises(ConnectionLost):
            secure.handshake()
            secure.write_some(b"hello\n")
            while secure.read():
                pass
            raise ConnectionLost("closed")
        secure.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_openssl_and_our_server(certificates: Certificates, kind: str, version: str) -> None:
    context = server_context(certificates)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT)
        settled: list[Tls] = []

        def serve() -> None:
            sock, _ = listener.accept()
            secure = context.wrap(KINDS[kind](sock))
            settled.append(secure.handshake())
            data = b""
            while not data.endswith(b"\n"):
                data += secure.read()
            secure.write_some(data[-2::-1] + b"\n")
            secure.close()

        thread = threading.Thread(target=serve)
        thread.start()
        command = [tool("openssl"), "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-quiet"]
        command += ["-CAfile", certificates.ca, "-verify_return_error", "-verify_hostname", OTHER, "-servername", OTHER]
        command += [{"1.2": "-tls1_2", "1.3": "-tls1_3"}[version], "-ign_eof"]
        done = subprocess.run(command, input=b"hello\n", capture_output=True, timeout=WAIT, check=False)
        thread.join(WAIT)
    assert done.stdout == b"olleh\n", done.stderr
    assert (settled[0].version, settled[0].server_name) == (f"TLSv{version}", OTHER)
