"""TLS over memory on another transport, in both roles, and what a handshake has settled.

`TlsTransport` gives the octets that its transport reads to an `ssl.SSLObject`, and sends those that this returns. So
the waits and deadlines of the transport below hold under TLS too, and for the handshake as well. TLS adds to a message
half of what it costs in clear, or less (docs/performance.rst). gsmtp.net.tls makes these transports.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gsmtp.net.channel_binding import server_end_point
from gsmtp.net.errors import ConnectionLost, TlsFailed
from gsmtp.net.transport import CHUNK, ClearTransport

# Called after the handshake: the name that the client asked for, and the server's certificate in DER.
Identity = Callable[[ssl.SSLObject], tuple[str | None, bytes]]


@dataclass(frozen=True)
class Tls:
    """What the handshake has settled. In a server it is `session.tls`.

    version      such as "TLSv1.3".
    cipher       OpenSSL's name of the cipher suite.
    bits         the size of its secret key.
    server_name  the name that the client asked for (SNI), or None.
    peer         the peer's certificate as `ssl.SSLSocket.getpeercert` gives it, if it was verified, else {}.
    peer_der     the peer's certificate in DER, or None if it showed none.
    unique       the channel binding tls-unique, or None in TLS 1.3.
    server_der   the server's certificate in DER.
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
        """The channel bindings (RFC 5929) by type, for SCRAM's -PLUS mechanisms.

        TLS 1.3 would need tls-exporter (RFC 9266), which Python's ssl does not give.
        """
        found = {}
        if self.unique is not None:
            found["tls-unique"] = self.unique
        end_point = server_end_point(self.server_der)
        if end_point is not None:
            found["tls-server-end-point"] = end_point
        return found

    @cached_property
    def peer_fingerprint(self) -> str | None:
        """SHA-256 of the peer's certificate in hexadecimal digits, or None if it showed none."""
        return hashlib.sha256(self.peer_der).hexdigest() if self.peer_der is not None else None


class TlsTransport:
    """TLS on another transport. See gsmtp.net.transport.Transport for the methods.

    `handshake` must have returned before the first read or write.
    """

    __slots__ = ("_ended", "_identity", "_incoming", "_object", "_outgoing", "_transport")

    def __init__(
        self,
        transport: ClearTransport,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        tls: ssl.SSLObject,
        identity: Identity,
    ) -> None:
        """`tls` reads from `incoming` and writes to `outgoing`."""
        self._transport = transport
        self._identity = identity
        self._ended = False
        self._incoming = incoming
        self._outgoing = outgoing
        self._object = tls

    def handshake(self) -> Tls:
        """Do the handshake and return what it has settled.

        Raises TlsFailed, after an alert has told the peer why, and ConnectionLost.
        """
        tls = self._object
        if tls.server_side and not self._incoming.pending:
            self._fill()  # the client begins
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError as error:
                # Without waiting: the reason is what is to be raised, not that the peer takes no alert.
                self._transport.offer(self._outgoing.read())
                raise TlsFailed(f"TLS handshake failed: {_reason(error, tls)}") from None
        # What is left to send (a server's ticket of TLS 1.3, the Finished of a server in TLS 1.2 or a client in TLS
        # 1.3) goes in one packet with the first write, or before the first read.
        name, version, bits = tls.cipher() or ("", "", 0)
        server_name, server_der = self._identity(tls)
        der = tls.getpeercert(binary_form=True)
        return Tls(
            version=tls.version() or version,
            cipher=name,
            bits=bits,
            server_name=server_name,
            peer=(tls.getpeercert() or {}) if der is not None else {},
            peer_der=der,
            unique=tls.get_channel_binding("tls-unique") if tls.version() != "TLSv1.3" else None,
            server_der=server_der,
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
                    piece = b""  # closed, with close_notify or without, as many clients do
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
        """See Transport. The end of TLS (close_notify) goes with the data."""
        self._encipher(data)
        self._end()
        return self._transport.write_last(self._outgoing.read())

    def write_rest(self) -> None:
        """See Transport."""
        self._transport.write_rest()

    def _encipher(self, data: bytes) -> None:
        try:
            self._object.write(data)
        except ssl.SSLError as error:
            raise ConnectionLost(f"TLS failed: {error.reason or error}") from None

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # it wants the peer's close_notify, which need not be waited for

    def finish_writing(self) -> None:
        """See Transport."""
        self._end()
        try:
            self._flush()
        except ConnectionLost:
            pass
        self._transport.finish_writing()

    def close(self) -> None:
        """See Transport. The peer gets a close_notify (RFC 8446 6.1) if that can be sent without waiting."""
        self._end()
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


def _reason(error: ssl.SSLError, tls: ssl.SSLObject) -> str:
    reason = error.reason or str(error)
    if isinstance(error, ssl.SSLCertVerificationError) and not tls.server_side:
        return f"{reason}: {error.verify_message}"
    return reason
