"""TLS contexts for both roles, and the transports that they make.

A context is made once from certificates and settings, and is shared by all connections. `TlsContext` is a server's;
a listener has one in each worker. Its session tickets are on, but each context of each worker has keys of its own,
which Python's ssl (3.11 to 3.13) can neither set nor read: a client that returns to another worker does a full
handshake. `ClientTlsContext` is a client's, and verifies servers unless told not to; it does not resume sessions.
Neither offers ALPN, for which SMTP has no registered name.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from gsmtp.net.tls_settings import TlsSettings
from gsmtp.net.tls_transport import TlsTransport
from gsmtp.net.transport import ClearTransport


class _ServerObject(ssl.SSLObject):
    """A server's end of one connection. It keeps the name that the client asked for."""

    requested_name: str | None = None

    def _sslsock(self) -> _ServerObject:
        # A patched process has gevent's SSLContext, which calls this method of the object before it calls the SNI
        # callback: it expects a socket of gevent, which holds its SSLSocket by a weak reference.
        return self


class TlsContext:
    """A listener's certificates and settings of TLS."""

    def __init__(self, settings: TlsSettings, located: Callable[[str], str] = str) -> None:
        """`located` returns, for a file that the worker's user may not read, a path under which the worker can.

        Raises ValueError, with the name of the file or setting, when something cannot be used.
        """
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
        context.minimum_version = _VERSIONS[settings.tls_minimum]
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        _set_ciphers(context, settings.tls_ciphers)
        _load_certificate(context, certfile, keyfile, self._located)
        if settings.client_ca:
            with _naming(settings.client_ca):
                context.load_verify_locations(self._located(settings.client_ca))
            context.verify_mode = ssl.CERT_OPTIONAL
        # An SMTP client keeps one ticket for a server; OpenSSL would make two, which costs 7 % of a handshake.
        context.num_tickets = 1
        context.sslobject_class = _ServerObject
        context.sni_callback = self.choose
        return context

    def wrap(self, transport: ClearTransport, early: bytes = b"") -> TlsTransport:
        """Return a transport that adds TLS to `transport`; its `handshake` comes next.

        `early` is what the caller has already read of the client's handshake.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(early)
        tls = self._default.wrap_bio(incoming, outgoing, server_side=True)
        return TlsTransport(transport, incoming, outgoing, tls, self._identity)

    def choose(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Take the certificate for the name that the client asks for, if there is one. OpenSSL calls this."""
        assert isinstance(tls, _ServerObject)
        tls.requested_name = name
        if name is not None and (found := self._named.get(name.lower().rstrip("."))):
            tls.context = found[0]

    def _identity(self, tls: ssl.SSLObject) -> tuple[str | None, bytes]:
        name = tls.requested_name if isinstance(tls, _ServerObject) else None
        found = self._named.get(name.lower().rstrip(".")) if name is not None else None
        return name, found[1] if found else self._default_der


class ClientTlsContext:
    """A client's settings of TLS.

    verify    whether the server's certificate must be valid and for the server's name. Opportunistic TLS (RFC 7435)
              does not verify, since it would otherwise send in clear.
    cafile    a PEM file of authorities to trust. "": those of the system.
    certfile  a PEM file of the client's own certificate, to show when the server asks for one. "": none.
    keyfile   its key. "": in the same file.
    minimum   the lowest version of TLS.
    ciphers   OpenSSL's cipher list for TLS 1.2. "": OpenSSL's default.

    Raises ValueError, with the name of the file or the ciphers, when something cannot be used.
    """

    def __init__(
        self,
        *,
        verify: bool = True,
        cafile: str = "",
        certfile: str = "",
        keyfile: str = "",
        minimum: Literal["1.2", "1.3"] = "1.2",
        ciphers: str = "",
    ) -> None:
        # Not ssl.create_default_context: what it demands of certificates differs between versions of Python.
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = verify
        context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
        context.minimum_version = _VERSIONS[minimum]
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        _set_ciphers(context, ciphers)
        if certfile:
            _load_certificate(context, certfile, keyfile)
        if cafile:
            with _naming(cafile):
                context.load_verify_locations(cafile)
        elif verify:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)

    def wrap(self, transport: ClearTransport, server_name: str) -> TlsTransport:
        """Return a transport that adds TLS to `transport`; its `handshake` comes next.

        `server_name` is a host name in ASCII or an IP address. The server is asked for a certificate for it (SNI, names
        only), which must be valid for it if `verify` was set. After STARTTLS, the caller must have seen that nothing
        followed the server's reply: that would have been said in clear, by anyone. Raises ValueError when
        `server_name` cannot be one.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(incoming, outgoing, server_hostname=server_name)
        return TlsTransport(transport, incoming, outgoing, tls, _asked_for)


def _asked_for(tls: ssl.SSLObject) -> tuple[str | None, bytes]:
    return tls.server_hostname, tls.getpeercert(binary_form=True) or b""


_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def _set_ciphers(context: ssl.SSLContext, ciphers: str) -> None:
    if ciphers:
        with _naming(f"tls_ciphers {ciphers}"):
            context.set_ciphers(ciphers)


def _load_certificate(
    context: ssl.SSLContext, certfile: str, keyfile: str, located: Callable[[str], str] = str
) -> None:
    keyfile = keyfile or certfile
    with _naming(certfile if keyfile == certfile else f"{certfile} and {keyfile}"):
        # With an empty password, an encrypted key is an error. Without one, OpenSSL would ask on the terminal.
        context.load_cert_chain(located(certfile), located(keyfile), password="")


@contextmanager
def _naming(files: str) -> Iterator[None]:
    """Turn an error within into a ValueError that names the files, which OpenSSL's errors do not."""
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
