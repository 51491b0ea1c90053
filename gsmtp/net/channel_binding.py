"""The channel binding "tls-server-end-point" (RFC 5929 4): a hash of the server's certificate.

The hash function is that of the certificate's signature, but SHA-256 where this is MD5 or SHA-1 (4.1). Python's ssl
does not tell the signature algorithm, so it is read here from its place in the certificate (RFC 5280 4.1), which takes
40 lines. The `cryptography` library gives the same answer, but takes 10 MB of each worker, and 46 ms within the first
session under TLS. The tests compare the two.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

# By the object identifier in DER: sha256/384/512WithRSAEncryption, ecdsa-with-SHA256/384/512, then MD5 and SHA-1.
_SIGNATURE_HASHES = {
    "2a864886f70d01010b": "sha256",
    "2a864886f70d01010c": "sha384",
    "2a864886f70d01010d": "sha512",
    "2a8648ce3d040302": "sha256",
    "2a8648ce3d040303": "sha384",
    "2a8648ce3d040304": "sha512",
    "2a864886f70d010104": "sha256",
    "2a864886f70d010105": "sha256",
    "2a8648ce3d0401": "sha256",
}
# RSASSA-PSS (RFC 4055 3.1) names its hash in its parameters: these, or SHA-1 when it names none.
_PSS = "2a864886f70d01010a"
_HASHES = {"608648016503040201": "sha256", "608648016503040202": "sha384", "608648016503040203": "sha512"}
_SEQUENCE, _OBJECT_IDENTIFIER, _FIRST_PARAMETER = 0x30, 0x06, 0xA0


@lru_cache(64)
def server_end_point(certificate: bytes) -> bytes | None:
    """Return the tls-server-end-point binding of a certificate in DER.

    The result is None where RFC 5929 defines no binding, because the signature has no hash of its own (as Ed25519), and
    for a signature algorithm or an encoding that is not known here.
    """
    try:
        name = _signature_hash(certificate)
    except (IndexError, ValueError):
        return None
    return hashlib.new(name, certificate).digest() if name is not None else None


def _signature_hash(certificate: bytes) -> str | None:
    # Certificate = SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { algorithm, parameters }, ... }
    whole, _ = _element(certificate, _SEQUENCE)
    _, behind = _element(whole, _SEQUENCE)
    identifier, _ = _element(behind, _SEQUENCE)
    algorithm, parameters = _element(identifier, _OBJECT_IDENTIFIER)
    if algorithm.hex() != _PSS:
        return _SIGNATURE_HASHES.get(algorithm.hex())
    # RSASSA-PSS-params = SEQUENCE { hashAlgorithm [0] SEQUENCE { algorithm, ... } DEFAULT sha1, ... }
    fields, _ = _element(parameters, _SEQUENCE)
    if not fields or fields[0] != _FIRST_PARAMETER:
        return "sha256"
    hash_algorithm, _ = _element(_element(fields, _FIRST_PARAMETER)[0], _SEQUENCE)
    return _HASHES.get(_element(hash_algorithm, _OBJECT_IDENTIFIER)[0].hex())


def _element(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Return the content of the element of DER that `data` begins with, and what follows the element.

    Raises ValueError or IndexError when it has another tag or is not whole.
    """
    if data[0] != tag:
        raise ValueError("another element")
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("cut off")
    return data[start : start + length], data[start + length :]
