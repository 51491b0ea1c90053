"""tls-server-end-point, against what the cryptography library reads in the same certificates."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.net.channel_binding import server_end_point

pytest.importorskip("cryptography")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.example.org")])
RSA = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


def certificate(key: Any, algorithm: Any, signature: Any = None, name: x509.Name = NAME) -> bytes:
    now = datetime.datetime(2026, 1, 1)
    more = {"rsa_padding": signature} if signature is not None else {}
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, algorithm, **more)
    )
    return made.public_bytes(serialization.Encoding.DER)


def expected(der: bytes) -> bytes | None:
    """RFC 5929 4.1."""
    algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
    if algorithm is None:
        return None
    name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
    return hashlib.new(name, der).digest()


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda a: a.name)
@pytest.mark.parametrize("kind", ["RSA", "PSS", "ECDSA"])
def test_algorithms(kind: str, algorithm: Any) -> None:
    signature = padding.PSS(padding.MGF1(algorithm), 32) if kind == "PSS" else None
    der = certificate(CURVE if kind == "ECDSA" else RSA, algorithm, signature)
    found = server_end_point(der)
    assert found is not None and found == expected(der)


def test_a_signature_without_a_hash() -> None:
    der = certificate(ed25519.Ed25519PrivateKey.generate(), None)
    assert server_end_point(der) is expected(der) is None


@pytest.mark.parametrize("tag", ["04", "05"], ids=["MD5", "SHA-1"])
def test_hashes_of_old_become_sha256(tag: str) -> None:
    """No library signs with these any more, so the algorithm is put into a finished certificate."""
    sha256 = bytes.fromhex("2a864886f70d01010b")
    der = certificate(RSA, hashes.SHA256()).replace(sha256, sha256[:-1] + bytes.fromhex(tag))
    assert server_end_point(der) == expected(der) == hashlib.sha256(der).digest()


def test_pss_without_parameters_is_sha1_and_so_sha256() -> None:
    pss = bytes.fromhex("2a864886f70d01010a")
    algorithm = b"\x30" + bytes([2 + len(pss) + 2]) + b"\x06" + bytes([len(pss)]) + pss + b"\x30\x00"
    der = b"\x30" + bytes([2 + len(algorithm)]) + b"\x30\x00" + algorithm
    assert server_end_point(der) == hashlib.sha256(der).digest()


def test_identifiers_in_other_places_do_not_count() -> None:
    """A name that has the identifiers of another algorithm in it, twice."""
    sha512 = bytes.fromhex("0609" + "2a864886f70d01010d").decode("latin-1")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, sha512 * 2)])
    der = certificate(RSA, hashes.SHA256(), name=name)
    assert server_end_point(der) == expected(der)


WHOLE = certificate(CURVE, hashes.SHA256())


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=4))
def test_what_is_no_certificate(at: int, octets: bytes) -> None:
    server_end_point(octets)
    assert server_end_point(WHOLE[:at]) is None
    server_end_point(WHOLE[:at] + octets + WHOLE[at + len(octets) :])
