"""Signatures that another implementation, dkimpy, verifies; and what must break them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gsmtp import mime

dkim = pytest.importorskip("dkim", reason="dkimpy is not installed")
pytest.importorskip("cryptography", reason="cryptography is not installed")
pytest.importorskip("nacl", reason="PyNaCl is not installed; dkimpy verifies Ed25519 with it")

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402
from cryptography.hazmat.primitives.serialization import (  # noqa: E402
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    written: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return written


def record(name: bytes, timeout: int = 5) -> bytes:
    if name.startswith(b"rsa."):
        public = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    public = ED25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(public)


def verified(raw: bytes, index: int = 0) -> bool:
    try:
        return bool(dkim.DKIM(raw).verify(idx=index, dnsfunc=record))
    except dkim.ValidationError:
        return False


def message(text: str = "Hello  world \n\n two\t\n\n\n") -> mime.Message:
    return mime.Message.build(
        from_="Jörg <joerg@example.com>",
        to=["ann@example.org", "bob@example.org"],
        subject="A subject that is long enough to be folded, since it goes on  and on until the line is full",
        text=text,
        headers={"List-Unsubscribe": "<https://example.com/u>"},
    )


KEYS = {"rsa": pem(RSA), "ed25519": pem(ED25519)}


@pytest.mark.parametrize("selector", KEYS)
@pytest.mark.parametrize("body", ["simple", "relaxed"])
@pytest.mark.parametrize("head", ["simple", "relaxed"])
@pytest.mark.parametrize("text", ["", "one line", "Hello  world \n\n two\t\n\n\n", "\n\n", "Grüße\n" * 50])
def test_dkimpy_verifies(selector: str, head: str, body: str, text: str) -> None:
    signer = mime.DKIM(selector, "example.com", KEYS[selector], canonicalization=(head, body), expires=3600)
    raw = mime.encode(message(text), dkim=signer)
    assert raw.startswith(b"DKIM-Signature: v=1;")
    assert verified(raw)
    assert all(len(line) <= 78 for line in raw.split(b"\r\n\r\n")[0].split(b"\r\n"))
    assert not verified(raw.replace(b"Subject: A", b"Subject: B"))
    assert not verified(raw + b"one more line\r\n")


def test_two_signatures() -> None:
    raw = mime.encode(message(), dkim=[mime.DKIM(name, "example.com", KEYS[name]) for name in KEYS])
    assert verified(raw, 0) and verified(raw, 1)


def test_a_second_from_breaks_the_signature() -> None:
    raw = mime.encode(message(), dkim=mime.DKIM("rsa", "example.com", KEYS["rsa"]))
    assert not verified(b"From: mallory@example.net\r\n" + raw)


def test_no_length_and_no_bcc_in_the_signature() -> None:
    built = mime.Message.build(from_="a@example.com", bcc="c@example.org", text="x")
    raw = mime.encode(built, dkim=mime.DKIM("rsa", "example.com", KEYS["rsa"]))
    signature = mime.decode(raw).headers["DKIM-Signature"] or ""
    assert " l=" not in signature and "bcc" not in signature and signature.count("from") == 2
    assert verified(raw)


def test_encrypted_key() -> None:
    key = pem(RSA, b"secret")
    signer = mime.DKIM("rsa", "example.com", key, password=b"secret")
    assert verified(mime.encode(message(), dkim=signer))
    for password in (None, b"wrong"):
        with pytest.raises(ValueError):
            mime.DKIM("rsa", "example.com", key, password=password)


def test_domain_with_umlaut_and_identity() -> None:
    signer = mime.DKIM("rsa", "bücher.example", KEYS["rsa"], identity="@mail.xn--bcher-kva.example")
    raw = mime.encode(message(), dkim=signer)
    assert b"d=xn--bcher-kva.example;" in raw and verified(raw)


@pytest.mark.parametrize(
    "change",
    [
        {"domain": "no domain"},
        {"selector": "a;b"},
        {"selector": ""},
        {"key": b"no key"},
        {"key": pem(ec.generate_private_key(ec.SECP256R1()))},
        {"canonicalization": ("relaxed", "nofws")},
        {"headers": ["Subject"]},
        {"identity": "a@example.net"},
    ],
)
def test_what_cannot_sign_is_a_value_error(change: dict[str, object]) -> None:
    arguments: dict[str, object] = {"selector": "rsa", "domain": "example.com", "key": KEYS["rsa"], **change}
    with pytest.raises(ValueError):
        mime.DKIM(**arguments)  # type: ignore[arg-type]


def test_a_mail_that_cannot_be_signed() -> None:
    signer = mime.DKIM("rsa", "example.com", KEYS["rsa"])
    for raw in (b"Subject: x\r\n\r\n", b"From: a@b.example\n\nbody\n"):
        with pytest.raises(ValueError):
            signer.sign(raw)
