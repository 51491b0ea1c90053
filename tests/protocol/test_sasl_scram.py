"""SCRAM: the example of RFC 7677, channel binding, what is refused, and what an unknown user looks like."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest
from exchanges import CONTEXT, Directory, converse, run

from gsmtp.protocol.sasl import (
    BAD_CREDENTIALS,
    MALFORMED,
    MECHANISMS,
    Challenge,
    ClientContext,
    Failure,
    GetPassword,
    Response,
    SaslError,
    ScramCredentials,
    ServerContext,
    Success,
    advance,
    decode,
)
from gsmtp.protocol.sasl.exchange import MAX_NAME
from gsmtp.protocol.sasl.scram import MAX_ITERATIONS, MAX_NONCE, scram_client, scram_server

NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
FIRST = f"n,,n=user,r={NONCE}".encode()
FINAL = f"c=biws,r={NONCE}{SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
KEY = b"k" * 32
STORED = Directory({"user": ScramCredentials.derive("pencil", salt=SALT)})


def reply(end: Success | Failure) -> Any:
    return end.reply if isinstance(end, Failure) else end


def scram(first: bytes, *rest: bytes, people: Directory = STORED) -> tuple[Success | Failure, list[Challenge]]:
    return run(scram_server(CONTEXT, first, nonce=SERVER_NONCE), people, *rest)


def test_scram_example_of_rfc_7677_as_server() -> None:
    end, challenges = scram(FIRST, FINAL, b"")
    assert end == Success("user")
    server_first = f"r={NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
    assert challenges == [Challenge(server_first), Challenge(SIGNATURE)]


def test_scram_example_of_rfc_7677_as_client() -> None:
    client = scram_client(ClientContext(user="user", password="pencil"), nonce=NONCE)
    assert advance(client) == Response(FIRST)
    server_first = f"r={NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
    assert advance(client, server_first) == Response(FINAL)
    assert advance(client, SIGNATURE) == Response(b"")
    assert advance(client, None) is None


@pytest.mark.parametrize(
    ("first", "wanted"),
    [
        (b"", MALFORMED),
        (b"\xff", MALFORMED),
        (b"n,,", MALFORMED),
        (b"n,,n=user", MALFORMED),
        (b"n,,r=abc,n=user", MALFORMED),
        (b"n,,n=,r=abc", MALFORMED),
        (b"n,,n=us=er,r=abc", MALFORMED),
        (b"n,,n=us\0er,r=abc", MALFORMED),
        (b"n,,n=us\ner,r=abc", MALFORMED),
        (b"n,,n=user,r=", MALFORMED),
        (b"n,,n=user,r=a b", MALFORMED),
        (b"n,,n=user,r=" + b"a" * (MAX_NONCE + 1), MALFORMED),
        (b"n,,n=" + b"u" * (MAX_NAME + 1) + b",r=abc", MALFORMED),
        (b"n,,m=must,n=user,r=abc", MALFORMED),
        (b"x,,n=user,r=abc", MALFORMED),
        (b"n,n=user,r=abc", MALFORMED),
        (b"n,,n=user,r=abc,", MALFORMED),
        (b"p=tls-unique,,n=user,r=abc", MALFORMED),  # binding without -PLUS
        (b"n,a=other,n=user,r=abc", BAD_CREDENTIALS),
        ("n,,n=\u00ad,r=abc".encode(), BAD_CREDENTIALS),
    ],
)
def test_scram_first_message_refused(first: bytes, wanted: object) -> None:
    assert reply(scram(first)[0]) == wanted


@pytest.mark.parametrize(
    ("final", "wanted"),
    [
        (b"", MALFORMED),
        (b"\xff", MALFORMED),
        (b"*", MALFORMED),
        (FINAL[:-1], MALFORMED),
        (FINAL.replace(b"c=biws", b"c=bi=s"), MALFORMED),
        (FINAL.replace(b"c=biws", b"c=eSws"), BAD_CREDENTIALS),  # y,, where n,, was said
        (FINAL.replace(b"c=biws", b"c=biwsAAAA"), BAD_CREDENTIALS),
        (FINAL.replace(b"k0,", b"k1,"), BAD_CREDENTIALS),
        (FINAL.replace(b"k0,", b"k0x,"), BAD_CREDENTIALS),
        (FINAL.replace(b"p=d", b"p=e"), BAD_CREDENTIALS),
        (FINAL.replace(b",p=", b",x=ignored,p="), BAD_CREDENTIALS),  # allowed, but the proof does not cover it
    ],
)
def test_scram_final_message_refused(final: bytes, wanted: object) -> None:
    assert reply(scram(FIRST, final)[0]) == wanted


def test_scram_tells_the_log_what_was_wrong() -> None:
    for final, why in (
        (FINAL.replace(b"k0,", b"k1,"), "nonce"),
        (FINAL.replace(b"c=biws", b"c=eSws"), "channel binding"),
        (FINAL.replace(b"p=d", b"p=e"), "proof"),
    ):
        end = scram(FIRST, final)[0]
        assert isinstance(end, Failure) and why in end.why


def test_scram_ends_with_an_empty_response() -> None:
    assert reply(scram(FIRST, FINAL, b"x")[0]) == MALFORMED


def test_scram_carries_escaped_names_authzid_and_extensions() -> None:
    people = Directory({"a,b=c@x": "pencil"})
    client = ClientContext(user="a,b=c@x", password="pencil", authzid="a,b=c@x")
    end, said = converse("SCRAM-SHA-256", CONTEXT, client, people)
    assert end == Success("a,b=c@x")
    assert said[0].startswith(b"n,a=a=2Cb=3Dc@x,n=a=2Cb=3Dc@x,r=")
    assert people.asked == [GetPassword("a,b=c@x", "SCRAM-SHA-256")]
    _, challenges = scram(FIRST + b",x=what,y=ever", b"")
    assert challenges[0].data.startswith(b"r=")


def test_an_unknown_user_looks_like_a_known_one() -> None:
    """Same steps, a salt that stays, and another one for another user; so also where credentials are stored."""

    def salt(context: ServerContext, user: str, people: Directory) -> bytes:
        first = f"n,,n={user},r=abc".encode()
        end, challenges = run(MECHANISMS["SCRAM-SHA-256"].server(context, first), people, FINAL)
        assert reply(end) == BAD_CREDENTIALS
        assert len(challenges) == 1
        nonce, salt, iterations = challenges[0].data.split(b",")
        assert nonce.startswith(b"r=abc") and iterations == b"i=4096"
        return decode(salt[2:])

    plain = Directory({"known": "pencil"})
    for context in (CONTEXT, replace(CONTEXT, stored_keys=True)):
        salts = [salt(context, user, plain) for user in ("known", "known", "nobody", "nobody", "else")]
        assert salts[0] == salts[1] and salts[2] == salts[3]
        assert len(set(salts)) == 3
        assert {len(one) for one in salts} == {len(ScramCredentials.derive("x").salt)}
    assert salt(replace(CONTEXT, secret=b"x" * 16), "nobody", plain) != salt(CONTEXT, "nobody", plain)


def test_nobody_can_prove_to_be_an_unknown_user() -> None:
    for password in ("unknown", "None", "pencil"):
        for answer in (None, "", "\u00ad", "\udc80", "\u0221"):
            client = ClientContext(user="nobody", password=password)
            exchange = MECHANISMS["SCRAM-SHA-256"].client(client)
            first = advance(exchange)
            assert isinstance(first, Response)
            server = MECHANISMS["SCRAM-SHA-256"].server(CONTEXT, first.data)
            assert isinstance(advance(server), GetPassword)
            challenge = advance(server, answer)
            assert isinstance(challenge, Challenge)
            final = advance(exchange, challenge.data)
            assert isinstance(final, Response)
            assert reply(advance(server, final.data)) == BAD_CREDENTIALS  # type: ignore[arg-type]


BINDINGS = {"tls-exporter": b"E" * 32, "tls-server-end-point": b"S" * 32}
BOUND = replace(CONTEXT, channel_bindings=BINDINGS, offered=("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"))
BINDER = ClientContext(user="user", password="pencil", channel_bindings=BINDINGS, offered=BOUND.offered)


@pytest.mark.parametrize("kind", ["tls-exporter", "tls-unique", "tls-server-end-point"])
def test_scram_plus_binds(kind: str) -> None:
    data = {kind: hashlib.sha256(kind.encode()).digest()}
    end, said = converse(
        "SCRAM-SHA-256-PLUS", replace(BOUND, channel_bindings=data), replace(BINDER, channel_bindings=data), STORED
    )
    assert end == Success("user")
    assert said[0].startswith(f"p={kind},,n=user,r=".encode())


def test_scram_plus_prefers_the_exporter() -> None:
    assert converse("SCRAM-SHA-256-PLUS", BOUND, BINDER, STORED)[1][0].startswith(b"p=tls-exporter,")


def test_scram_plus_refuses_another_connection() -> None:
    """Someone in the middle has two connections, whose bindings differ."""
    other = replace(BINDER, channel_bindings={"tls-exporter": b"F" * 32})
    assert reply(converse("SCRAM-SHA-256-PLUS", BOUND, other, STORED)[0]) == BAD_CREDENTIALS
    unknown = replace(BINDER, channel_bindings={"tls-unique": b"F" * 32})
    assert reply(converse("SCRAM-SHA-256-PLUS", BOUND, unknown, STORED)[0]) == BAD_CREDENTIALS
    empty = replace(BOUND, channel_bindings={"tls-exporter": b""})
    assert reply(run(MECHANISMS["SCRAM-SHA-256-PLUS"].server(empty, b"p=tls-exporter,,n=user,r=a"), STORED)[0]) == (
        BAD_CREDENTIALS
    )
    for first in (FIRST, b"y,,n=user,r=abc"):
        assert reply(run(MECHANISMS["SCRAM-SHA-256-PLUS"].server(BOUND, first), STORED)[0]) == MALFORMED


def test_scram_detects_a_downgrade() -> None:
    """Someone has taken -PLUS out of the list: the client says that it saw none, under the proof."""
    stripped = replace(BINDER, offered=("SCRAM-SHA-256",))
    end, said = converse("SCRAM-SHA-256", BOUND, stripped, STORED)
    assert said[0].startswith(b"y,,")
    assert reply(end) == BAD_CREDENTIALS
    assert isinstance(end, Failure) and "downgraded" in end.why
    # "y" is right where the server has no -PLUS, and "n" where the client cannot bind.
    assert converse("SCRAM-SHA-256", CONTEXT, stripped, STORED)[0] == Success("user")
    assert converse("SCRAM-SHA-256", BOUND, replace(stripped, channel_bindings={}), STORED)[0] == Success("user")
    # Changing the flag back on its way breaks the proof.
    forged = FINAL.replace(b"c=biws", b"c=eSws")
    assert reply(scram(FIRST, forged)[0]) == BAD_CREDENTIALS


@pytest.mark.parametrize(
    "challenge",
    [
        None,
        b"",
        b"\xff",
        b"e=other-error",
        b"r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        f"r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode(),
        f"r={NONCE}x,s=,i=4096".encode(),
        f"r={NONCE}x,s=====,i=4096".encode(),
        f"r={NONCE}x,s=AAAAA,i=4096".encode(),
        f"r={NONCE}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095".encode(),
        f"r={NONCE}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0".encode(),
        f"r={NONCE}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i={MAX_ITERATIONS + 1}".encode(),
        f"m=must,r={NONCE}x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode(),
    ],
)
def test_scram_client_refuses_a_false_start(challenge: bytes | None) -> None:
    client = scram_client(ClientContext(user="user", password="pencil"), nonce=NONCE)
    advance(client)
    with pytest.raises(SaslError):
        advance(client, challenge)


@pytest.mark.parametrize("verdict", [None, b"", b"\xff", b"e=invalid-proof", b"v=", SIGNATURE[:-2] + b"5="])
def test_scram_client_refuses_a_server_that_proves_nothing(verdict: bytes | None) -> None:
    client = scram_client(ClientContext(user="user", password="pencil"), nonce=NONCE)
    advance(client)
    advance(client, f"r={NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())
    with pytest.raises(SaslError, match=r"proof|prove|UTF-8"):
        advance(client, verdict)


def test_scram_credentials_as_text() -> None:
    credentials = STORED.passwords["user"]
    text = credentials.text()
    assert text.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    assert ScramCredentials.parse(text) == credentials
    for bad in ("", "pencil", text[:-1], text.replace("256", "1"), text.replace("4096", "0"), text + "\n"):
        with pytest.raises(ValueError) as error:
            ScramCredentials.parse(bad)
        assert "pencil" not in str(error.value)
    for bad in ("\u00ad", "", "\u0221"):  # the last is not assigned in Unicode 3.2
        with pytest.raises(ValueError):
            ScramCredentials.derive(bad)
    for fields in ((b"", 4096, KEY, KEY), (b"salt", 0, KEY, KEY), (b"s", 1, KEY[1:], KEY), (b"s", 1, KEY, KEY[1:])):
        with pytest.raises(ValueError):
            ScramCredentials(*fields)


def test_a_context_that_would_be_unsafe_cannot_be_made() -> None:
    with pytest.raises(ValueError):
        ServerContext(hostname="x", secret=b"short")
    with pytest.raises(ValueError):
        replace(CONTEXT, iterations=4095)
