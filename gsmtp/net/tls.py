"""TLS: contexts made from the settings, the transport, and what is known of a client after the handshake.

`TlsTransport` runs `ssl` over memory on a plain transport, so the persistent watcher and the deadlines of that serve
here too, for the handshake as well. What TLS adds to a message is half of what it takes in clear or less
(docs/performance.rst). Contexts are made once in a worker and shared by all sessions. Session tickets are on, but each
context of each worker has keys of its own, which Python's ssl (3.11 to 3.13) can neither set nor read: a client that
comes back to another worker does a full handshake.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from gsmtp.net.errors import ConnectionLost, TlsFailed
from gsmtp.net.tls_settings import TlsSettings
from gsmtp.net.transport import CHUNK, PlainTransport


@dataclass(frozen=True)
class Tls:
    """`session.tls`: what the handshake has settled.

    `version` "TLSv1.3", `cipher` OpenSSL's name, `bits` of its secret, `server_name` that the client asked for or None,
    `peer` the verified client certificate as `ssl.SSLSocket.getpeercert` gives it, {} for none, `peer_der` the same as
    octets, `unique` the tls-unique channel binding (None in TLS 1.3), `server_der` the certificate that we showed.
    """

    version: str
    cipher: str
    bits: int
    server_name: str | None
    peer: Mapping[str, Any]
    peer_der: bytes | None
    unique: bytes | None
    server_der: bytes

    @cached_property
    def channel_bindings(self) -> Mapping[str, bytes]:
        """For SCRAM's -PLUS mechanisms: what both sides can know of this TLS session (RFC 5929).

        tls-exporter (RFC 9266) would be the one for TLS 1.3, but Python's ssl does not give it.
        """
        found = {}
        if self.unique is not None:
            found["tls-unique"] = self.unique
        end_point = _end_point(self.server_der)
        if end_point is not None:
            found["tls-server-end-point"] = end_point
        return found

    @cached_property
    def peer_fingerprint(self) -> str | None:
        """SHA-256 of the client's certificate in hexadecimal digits, None without one."""
        return hashlib.sha256(self.peer_der).hexdigest() if self.peer_der is not None else None


class _Object(ssl.SSLObject):
    """Remembers the name that the client asked for."""

    requested_name: str | None = None

    def _sslsock(self) -> _Object:
        # gevent's SSLContext, which a patched process has, asks this of what it gives to the SNI callback: it expects
        # a socket of its own, which holds the SSLSocket by a weak reference.
        return self


class TlsContext:
    """A listener's certificates. Raises ValueError, with the file at fault, when they cannot be used."""

    def __init__(self, settings: TlsSettings, located: Callable[[str], str] = str) -> None:
        """`located` gives the path under which a worker can read a file that its user may not."""
        self._settings = settings
        self._located = located
        self._default = self._context(settings.certfile, settings.keyfile)
        self._default_der = _first_certificate(located(settings.certfile))
        self._named: dict[str, tuple[ssl.SSLContext, bytes]] = {}
        for name, files in settings.certificates.items():
            certfile = files[0]
            made = self._context(certfile, files[-1])
            self._named[name.lower().rstrip(".")] = (made, _first_certificate(located(certfile)))

    def _context(self, certfile: str, keyfile: str) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.tls_minimum == "1.3" else ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        if settings.tls_ciphers:
            with _naming(f"tls_ciphers {settings.tls_ciphers}"):
                context.set_ciphers(settings.tls_ciphers)
        keyfile = keyfile or certfile
        with _naming(certfile if keyfile == certfile else f"{certfile} and {keyfile}"):
            # An empty password: an encrypted key is an error, not a prompt on the terminal.
            context.load_cert_chain(self._located(certfile), self._located(keyfile), password="")
        if settings.client_ca:
            with _naming(settings.client_ca):
                context.load_verify_locations(self._located(settings.client_ca))
            context.verify_mode = ssl.CERT_OPTIONAL
        # A client of mail keeps one ticket for a server; OpenSSL would make two, at some 7 % of a handshake's cost.
        context.num_tickets = 1
        context.sslobject_class = _Object
        context.sni_callback = self.choose
        return context

    def wrap(self, transport: PlainTransport, early: bytes = b"") -> TlsTransport:
        """`transport` under TLS; `handshake` comes next. `early`: what was read of it already."""
        return TlsTransport(transport, self, early)

    def choose(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called by OpenSSL with the name that the client asks for; takes the certificate for it where there is one."""
        assert isinstance(tls, _Object)
        tls.requested_name = name
        if name is not None and (found := self._named.get(name.lower().rstrip("."))):
            tls.context = found[0]

    def certificate(self, name: str | None) -> bytes:
        """The certificate shown to a client that asked for `name`, in DER."""
        found = self._named.get(name.lower().rstrip(".")) if name is not None else None
        return found[1] if found else self._default_der

    def new_object(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """One connection's TLS machine."""
        return self._default.wrap_bio(incoming, outgoing, server_side=True)


class TlsTransport:
    """See gsmtp.net.transport.Transport. `handshake` must have returned before the first read or write."""

    __slots__ = ("_context", "_ended", "_incoming", "_object", "_outgoing", "_transport")

    def __init__(self, transport: PlainTransport, context: TlsContext, early: bytes = b"") -> None:
        self._transport = transport
        self._context = context
        self._ended = False
        self._incoming = ssl.MemoryBIO()
        self._incoming.write(early)
        self._outgoing = ssl.MemoryBIO()
        self._object = context.new_object(self._incoming, self._outgoing)

    def handshake(self) -> Tls:
        """Do it; what it has settled. Raises TlsFailed, after telling the client why."""
        tls = self._object
        if not self._incoming.pending:
            self._fill()
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError as error:
                self._flush()
                raise TlsFailed(f"TLS handshake failed: {error.reason or error}") from None
        # What is left to send (a ticket of TLS 1.3, our Finished of TLS 1.2) goes in one packet with the banner, or
        # before the first read.
        name, version, bits = tls.cipher() or ("", "", 0)
        requested = tls.requested_name if isinstance(tls, _Object) else None
        der = tls.getpeercert(binary_form=True)
        return Tls(
            version=tls.version() or version,
            cipher=name,
            bits=bits,
            server_name=requested,
            peer=(tls.getpeercert() or {}) if der is not None else {},
            peer_der=der,
            unique=tls.get_channel_binding("tls-unique") if tls.version() != "TLSv1.3" else None,
            server_der=self._context.certificate(requested),
        )

    def read(self) -> bytes:
        """See Transport."""
        tls, incoming = self._object, self._incoming
        pieces: list[bytes] = []
        while True:
            # To ask `ssl` when there is nothing costs an exception, as much as deciphering a command.
            while incoming.pending or tls.pending() or incoming.eof:
                try:
                    # OpenSSL gives one record at a time, 16 KiB at most.
                    piece = tls.read(CHUNK)
                except ssl.SSLWantReadError:
                    break  # a record that is not whole
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    piece = b""  # closed, or gone without a word, as many clients do
                except ssl.SSLError as error:
                    raise ConnectionLost(f"TLS failed: {error.reason or error}") from None
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
            if pieces:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._flush()
            self._fill()

    def write_some(self, data: bytes) -> bool:
        """See Transport."""
        self._encipher(data)
        return self._transport.write_some(self._outgoing.read())

    def write_last(self, data: bytes) -> bool:
        """See Transport. That nothing more comes is said with it."""
        self._encipher(data)
        self._say_end()
        return self._transport.write_last(self._outgoing.read())

    def write_rest(self) -> None:
        """See Transport."""
        self._transport.write_rest()

    def _encipher(self, data: bytes) -> None:
        try:
            self._object.write(data)
        except ssl.SSLError as error:
            raise ConnectionLost(f"TLS failed: {error.reason or error}") from None

    def _say_end(self) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # it wants the client's word, which need not be waited for

    def finish_writing(self) -> None:
        """See Transport."""
        self._say_end()
        try:
            self._flush()
        except ConnectionLost:
            pass
        self._transport.finish_writing()

    def close(self) -> None:
        """See Transport. The client is told, if that can be done without waiting (RFC 8446 6.1)."""
        self._say_end()
        self._transport.offer(self._outgoing.read())
        self._transport.close()

    def _fill(self) -> None:
        data = self._transport.read()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())


@contextmanager
def _naming(files: str) -> Iterator[None]:
    """What goes wrong within becomes a ValueError that names the files; OpenSSL's own words do not."""
    try:
        yield
    except ssl.SSLError as error:
        # For an encrypted key it has no reason, for ciphers not even the attribute.
        reason = getattr(error, "reason", None) or ("CANNOT BE READ" if error.errno else str(error))
        raise ValueError(f"{files}: {reason.replace('_', ' ').lower()}") from None
    except OSError as error:
        raise ValueError(f"{files}: {error.strerror or error}") from None


def _first_certificate(path: str) -> bytes:
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read()
    begin = text.index(ssl.PEM_HEADER)
    return ssl.PEM_cert_to_DER_cert(text[begin : text.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)])


# RFC 5929 4.1: the hash of the certificate's signature, but SHA-256 for MD5 and SHA-1. The object identifiers in DER:
# sha256/384/512WithRSAEncryption, ecdsa-with-SHA256/384/512, sha1WithRSAEncryption, ecdsa-with-SHA1.
_SIGNATURE_HASHES = {
    "2a864886f70d01010b": "sha256",
    "2a864886f70d01010c": "sha384",
    "2a864886f70d01010d": "sha512",
    "2a8648ce3d040302": "sha256",
    "2a8648ce3d040303": "sha384",
    "2a8648ce3d040304": "sha512",
    "2a864886f70d010105": "sha256",
    "2a8648ce3d0401": "sha256",
}


@lru_cache(64)
def _end_point(certificate: bytes) -> bytes | None:
    """The tls-server-end-point binding of a certificate in DER; None where its signature has no one hash."""
    for identifier, name in _SIGNATURE_HASHES.items():
        octets = bytes.fromhex(identifier)
        # The signature's algorithm stands twice in a certificate (RFC 5280 4.1.1.2), and a key's is another one.
        if certificate.count(b"\x06" + bytes([len(octets)]) + octets) >= 2:
            return hashlib.new(name, certificate).digest()
    return None
