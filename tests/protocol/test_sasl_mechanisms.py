"""Each mechanism but SCRAM: the examples of its RFC, what is good, and everything that is not."""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any

import pytest
from exchanges import CONTEXT, Directory, converse, run, serve

from gsmtp.protocol.sasl import (
    BAD_CREDENTIALS,
    MALFORMED,
    MECHANISMS,
    Challenge,
    CheckPassword,
    CheckToken,
    ClientContext,
    Failure,
    Response,
    SaslError,
    ScramCredentials,
    Success,
    advance,
)
from gsmtp.protocol.sasl.cram import cram_md5_server
from gsmtp.protocol.sasl.exchange import MAX_NAME, MAX_PASSWORD

PEOPLE = Directory(passwords={"tim": "tanstaaftanstaaf", "Kurt": "xipj3plmq", "user": "pencil"})


def reply(end: Success | Failure) -> Any:
    return end.reply if isinstance(end, Failure) else end


# PLAIN and LOGIN


def test_plain_examples_of_rfc_4616() -> None:
    assert serve("PLAIN", PEOPLE, b"\0tim\0tanstaaftanstaaf") == Success("tim")
    acting = replace(PEOPLE, delegates=frozenset({("Kurt", "Ursel")}))
    assert serve("PLAIN", acting, b"Ursel\0Kurt\0xipj3plmq") == Success("Kurt", "Ursel")
    assert reply(serve("PLAIN", PEOPLE, b"Ursel\0Kurt\0xipj3plmq")) == BAD_CREDENTIALS


def test_plain_without_an_initial_response() -> None:
    end, challenges = run(MECHANISMS["PLAIN"].server(CONTEXT, None), PEOPLE, b"\0tim\0tanstaaftanstaaf")
    assert end == Success("tim")
    assert challenges == [Challenge(b"")]


@pytest.mark.parametrize(
    ("response", "wanted"),
    [
        (b"", MALFORMED),
        (b"tim", MALFORMED),
        (b"tim\0tanstaaftanstaaf", MALFORMED),
        (b"\0tim\0tanstaaf\0tanstaaf", MALFORMED),
        (b"\0tim\0tanstaaftanstaaf\0", MALFORMED),
        (b"\0\xff\0tanstaaftanstaaf", MALFORMED),
        (b"\0tim\0\xff", MALFORMED),
        (b"\xff\0tim\0tanstaaftanstaaf", MALFORMED),
        (b"\0ti\nm\0tanstaaftanstaaf", MALFORMED),
        (b"\r\n\0tim\0tanstaaftanstaaf", MALFORMED),
        (b"\0" + b"u" * (MAX_NAME + 1) + b"\0p", MALFORMED),
        (b"a" * (MAX_NAME + 1) + b"\0u\0p", MALFORMED),
        (b"\0u\0" + b"p" * (MAX_PASSWORD + 1), MALFORMED),
        (b"\0\0\0", MALFORMED),
        (b"\0\0", BAD_CREDENTIALS),
        (b"\0\0secret", BAD_CREDENTIALS),
        (b"\0tim\0", BAD_CREDENTIALS),
        (b"\0tim\0\xc2\xad", BAD_CREDENTIALS),  # a soft hyphen, mapped to nothing
        (b"\0tim\0tanstaaf\ttanstaaf", BAD_CREDENTIALS),
        (b"\0tim\0Tanstaaftanstaaf", BAD_CREDENTIALS),
        (b"\0nobody\0tanstaaftanstaaf", BAD_CREDENTIALS),
        (b"\0tim\0tanstaaftanstaaf ", BAD_CREDENTIALS),
    ],
)
def test_plain_refused(response: bytes, wanted: object) -> None:
    assert reply(serve("PLAIN", PEOPLE, response)) == wanted


def test_empty_credentials_never_reach_the_handler() -> None:
    """An LDAP server takes an empty password for an anonymous login, and says yes."""
    asked = Directory(passwords={"tim": "", "": ""})
    for response in (b"\0tim\0", b"\0\0", b"\0tim\0\xc2\xad"):
        serve("PLAIN", asked, response)
    serve("LOGIN", asked, b"tim", b"")
    assert asked.asked == []


def test_the_longest_fields_are_taken() -> None:
    user, password = "u" * MAX_NAME, "p" * MAX_PASSWORD
    assert serve("PLAIN", Directory({user: password}), f"\0{user}\0{password}".encode()) == Success(user)


def test_sasl_prep_makes_one_of_two_spellings() -> None:
    assert serve("PLAIN", Directory({"IX": "I X"}), "\0\u2168\0I\u00a0X".encode()) == Success("IX")
    assert serve("LOGIN", Directory({"IX": "I X"}), "\u2168".encode(), "I\u00a0X".encode()) == Success("IX")


def test_login_asks_for_the_user_first() -> None:
    end, challenges = run(MECHANISMS["LOGIN"].server(CONTEXT, None), PEOPLE, b"tim", b"tanstaaftanstaaf")
    assert end == Success("tim")
    assert [b64encode(challenge.data) for challenge in challenges] == [b"VXNlcm5hbWU6", b"UGFzc3dvcmQ6"]
    end, challenges = run(MECHANISMS["LOGIN"].server(CONTEXT, b"tim"), PEOPLE, b"tanstaaftanstaaf")
    assert end == Success("tim")
    assert [challenge.data for challenge in challenges] == [b"Password:"]


def test_login_refused() -> None:
    assert reply(serve("LOGIN", PEOPLE, b"tim", b"wrong")) == BAD_CREDENTIALS
    assert reply(serve("LOGIN", PEOPLE, b"tim", b"")) == BAD_CREDENTIALS
    assert reply(serve("LOGIN", PEOPLE, b"", b"tanstaaftanstaaf")) == BAD_CREDENTIALS
    assert reply(serve("LOGIN", PEOPLE, b"\xff")) == MALFORMED
    assert reply(serve("LOGIN", PEOPLE, b"tim\0")) == MALFORMED
    assert reply(serve("LOGIN", PEOPLE, b"tim", b"\xff")) == MALFORMED
    assert reply(serve("LOGIN", PEOPLE, None, b"u" * (MAX_NAME + 1))) == MALFORMED


def test_only_true_lets_in() -> None:
    """A truthy thing, as the coroutine of an `async def` hook that nobody awaits, is the handler's error."""

    class Coroutine:
        pass

    for answer in (Coroutine(), 1, "yes", 0):
        exchange = MECHANISMS["PLAIN"].server(CONTEXT, b"\0tim\0x")
        assert isinstance(advance(exchange), CheckPassword)
        with pytest.raises(TypeError):
            advance(exchange, answer)
    exchange = MECHANISMS["PLAIN"].server(CONTEXT, b"\0tim\0x")
    advance(exchange)
    assert reply(advance(exchange, None)) == BAD_CREDENTIALS  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "initial", "answer"),
    [
        ("XOAUTH2", b"user=tim\x01auth=Bearer abc\x01\x01", 1),
        ("EXTERNAL", b"", True),
        ("SCRAM-SHA-256", b"n,,n=tim,r=abc", b"tanstaaftanstaaf"),
        ("SCRAM-SHA-256", b"n,,n=tim,r=abc", True),
    ],
)
def test_answers_of_a_wrong_type(name: str, initial: bytes, answer: object) -> None:
    exchange = MECHANISMS[name].server(CONTEXT, initial)
    advance(exchange)
    with pytest.raises(TypeError) as error:
        advance(exchange, answer)
    assert "tanstaaf" not in str(error.value)


# CRAM-MD5


def test_cram_md5_example_of_rfc_2195() -> None:
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    end, challenges = run(
        cram_md5_server(CONTEXT, None, challenge=challenge), PEOPLE, b"tim b913a602c7eda7a495b4e6e7334d3890"
    )
    assert end == Success("tim")
    assert challenges == [Challenge(challenge)]
    client = MECHANISMS["CRAM-MD5"].client(ClientContext(user="tim", password="tanstaaftanstaaf"))
    assert advance(client) == Response(None)
    assert advance(client, challenge) == Response(b"tim b913a602c7eda7a495b4e6e7334d3890")
    assert advance(client, None) is None


@pytest.mark.parametrize(
    ("response", "wanted"),
    [
        (b"tim b913a602c7eda7a495b4e6e7334d3891", BAD_CREDENTIALS),
        (b"nobody b913a602c7eda7a495b4e6e7334d3890", BAD_CREDENTIALS),
        (b"stored b913a602c7eda7a495b4e6e7334d3890", BAD_CREDENTIALS),
        (b"empty b913a602c7eda7a495b4e6e7334d3890", BAD_CREDENTIALS),
        (b"surrogate b913a602c7eda7a495b4e6e7334d3890", BAD_CREDENTIALS),
        (b"", MALFORMED),
        (b"tim", MALFORMED),
        (b"tim ", MALFORMED),
        (b" b913a602c7eda7a495b4e6e7334d3890", MALFORMED),
        (b"b913a602c7eda7a495b4e6e7334d3890", MALFORMED),
        (b"tim b913a602c7eda7a495b4e6e7334d389", MALFORMED),
        (b"tim b913a602c7eda7a495b4e6e7334d38900", MALFORMED),
        (b"tim g913a602c7eda7a495b4e6e7334d3890", MALFORMED),
        (b"\xff b913a602c7eda7a495b4e6e7334d3890", MALFORMED),
        (b"t\0m b913a602c7eda7a495b4e6e7334d3890", MALFORMED),
    ],
)
def test_cram_md5_refused(response: bytes, wanted: object) -> None:
    stored = ScramCredentials.derive("x")
    people = Directory({"tim": "tanstaaftanstaaf", "stored": stored, "empty": "", "surrogate": "\udc80"})
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert reply(run(cram_md5_server(CONTEXT, None, challenge=challenge), people, response)[0]) == wanted


def test_cram_md5_never_knows_an_empty_key() -> None:
    """Nobody gets in as a user whom the handler does not know, by guessing what stands in for the password."""
    for key in (b"", b"\0", b"unknown", b"None"):
        digest = hmac.digest(key, b"<1@x>", "md5").hex().encode()
        for people in (Directory(), Directory({"tim": ""})):
            end, _ = run(cram_md5_server(CONTEXT, None, challenge=b"<1@x>"), people, b"tim " + digest)
            assert reply(end) == BAD_CREDENTIALS


def test_cram_md5_takes_no_initial_response_and_never_repeats_a_challenge() -> None:
    for initial in (b"", b"tim b913a602c7eda7a495b4e6e7334d3890"):
        assert reply(serve("CRAM-MD5", PEOPLE, initial)) == MALFORMED
    challenges = [advance(MECHANISMS["CRAM-MD5"].server(CONTEXT, None)) for _ in range(50)]
    assert len({repr(challenge) for challenge in challenges}) == 50
    assert b"@mx.example.net>" in challenges[0].data  # type: ignore[union-attr]


# XOAUTH2 and OAUTHBEARER

TOKENS = Directory(tokens={"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==": True, "named": "owner", "refused": False})
GOOGLE = b64decode(
    "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
)
RFC_7628 = b64decode(
    "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNS"
    "bGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
)


def test_oauthbearer_example_of_rfc_7628() -> None:
    assert serve("OAUTHBEARER", TOKENS, RFC_7628) == Success("user@example.com")
    client = MECHANISMS["OAUTHBEARER"].client(
        ClientContext(
            user="user@example.com",
            token="vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==",
            host="server.example.com",
            port=143,
        )
    )
    assert advance(client) == Response(RFC_7628)
    assert advance(client, None) is None


def test_oauthbearer_failed_example_of_rfc_7628() -> None:
    """4.3: no token at all; the server tells what it would need, gets %x01, and refuses."""
    context = replace(
        CONTEXT,
        oauth_scope="example_scope",
        openid_configuration="https://example.com/.well-known/openid-configuration",
    )
    first = b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=\x01\x01"
    end, challenges = run(MECHANISMS["OAUTHBEARER"].server(context, first), TOKENS, b"\x01")
    assert reply(end) == BAD_CREDENTIALS
    assert [challenge.refused for challenge in challenges] == [True]
    assert json.loads(challenges[0].data) == {
        "status": "invalid_token",
        "scope": "example_scope",
        "openid-configuration": "https://example.com/.well-known/openid-configuration",
    }


def test_xoauth2_example_of_google() -> None:
    token = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
    assert serve("XOAUTH2", Directory(tokens={token: True}), GOOGLE) == Success("someuser@example.com")
    client = MECHANISMS["XOAUTH2"].client(ClientContext(user="someuser@example.com", token=token))
    assert advance(client) == Response(GOOGLE)
    context = replace(CONTEXT, oauth_scope="https://mail.google.com/")
    end, challenges = run(MECHANISMS["XOAUTH2"].server(context, GOOGLE), Directory(), b"")
    assert reply(end) == BAD_CREDENTIALS
    assert challenges[0].refused
    assert json.loads(challenges[0].data) == {
        "status": "401",
        "schemes": "bearer",
        "scope": "https://mail.google.com/",
    }


@pytest.mark.parametrize("dummy", [b"", b"\x01", b"\xff" * 100])
@pytest.mark.parametrize("name", ["XOAUTH2", "OAUTHBEARER"])
def test_a_refused_token_waits_for_any_dummy(name: str, dummy: bytes) -> None:
    first = {
        "XOAUTH2": b"user=tim\x01auth=Bearer refused\x01\x01",
        "OAUTHBEARER": b"n,a=tim,\x01auth=Bearer refused\x01\x01",
    }
    assert reply(serve(name, TOKENS, first[name], dummy)) == BAD_CREDENTIALS


def test_whose_the_token_is() -> None:
    assert serve("OAUTHBEARER", TOKENS, b"n,,\x01auth=Bearer named\x01\x01") == Success("owner")
    assert serve("OAUTHBEARER", TOKENS, b"y,a=tim,\x01auth=bearer named\x01\x01") == Success("owner")
    anyone = Directory(tokens={"t": True})
    assert reply(serve("OAUTHBEARER", anyone, b"n,,\x01auth=Bearer t\x01\x01", b"\x01")) == BAD_CREDENTIALS
    assert anyone.asked == [CheckToken("", "t", "OAUTHBEARER")]
    assert serve("OAUTHBEARER", anyone, b"n,a=a=2Cb=3D,\x01auth=Bearer t\x01\x01") == Success("a,b=")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("XOAUTH2", b""),
        ("XOAUTH2", b"\xff"),
        ("XOAUTH2", b"user=tim\x01auth=Bearer named\x01"),
        ("XOAUTH2", b"user=\x01auth=Bearer named\x01\x01"),
        ("XOAUTH2", b"user=t\nm\x01auth=Bearer named\x01\x01"),
        ("XOAUTH2", b"user=tim\x01auth=Bearer named\x01\x01\x01"),
        ("XOAUTH2", b"auth=Bearer named\x01user=tim\x01\x01"),
        ("XOAUTH2", b"user=" + b"u" * (MAX_NAME + 1) + b"\x01auth=Bearer named\x01\x01"),
        ("XOAUTH2", b"user=tim\x01auth=Bearer " + b"t" * 8193 + b"\x01\x01"),
        ("OAUTHBEARER", b""),
        ("OAUTHBEARER", b"\x01"),
        ("OAUTHBEARER", b"\xff"),
        ("OAUTHBEARER", b"n,a=tim,\x01auth=Bearer named\x01"),
        ("OAUTHBEARER", b"n,a=,\x01auth=Bearer named\x01\x01"),
        ("OAUTHBEARER", b"n,a=t=m,\x01auth=Bearer named\x01\x01"),
        ("OAUTHBEARER", b"n,a=t\nm,\x01auth=Bearer named\x01\x01"),
        ("OAUTHBEARER", b"p=tls-unique,a=tim,\x01auth=Bearer named\x01\x01"),
        ("OAUTHBEARER", b"n,a=tim,\x01auth=Bearer named\x01auth=Bearer named\x01\x01"),
        ("OAUTHBEARER", b"n,a=tim,\x01=x\x01auth=Bearer named\x01\x01"),
    ],
)
def test_oauth_malformed(name: str, first: bytes) -> None:
    assert reply(serve(name, TOKENS, first)) == MALFORMED


def test_a_token_that_is_none_is_refused_without_asking() -> None:
    people = Directory(tokens={"named": True, "": True})
    for auth in (b"", b"Bearer", b"Bearer ", b"Basic named", b"Bearer na med", b"Bearer =", b"Bearer n\xc3\xa4med"):
        assert reply(serve("XOAUTH2", people, b"user=tim\x01auth=" + auth + b"\x01\x01", b"")) == BAD_CREDENTIALS
    assert people.asked == []


def test_oauth_clients_answer_the_error() -> None:
    for name, dummy in (("XOAUTH2", b""), ("OAUTHBEARER", b"\x01")):
        client = ClientContext(user="tim", token="refused")
        end, said = converse(name, CONTEXT, client, TOKENS)
        assert reply(end) == BAD_CREDENTIALS
        assert said[1:] == [dummy]
        exchange = MECHANISMS[name].client(client)
        advance(exchange)
        advance(exchange, b"{}")
        with pytest.raises(SaslError):
            advance(exchange, None)


# EXTERNAL


def test_external() -> None:
    holder = Directory(certificate="tim")
    assert serve("EXTERNAL", holder, b"") == Success("tim")
    assert serve("EXTERNAL", holder, None, b"") == Success("tim")
    assert serve("EXTERNAL", holder, b"ursel") == Success("tim", "ursel")
    for nobody in (Directory(), Directory(certificate="")):
        assert reply(serve("EXTERNAL", nobody, b"")) == BAD_CREDENTIALS
    for malformed in (b"\xff", b"a\0b", b"\r\n", b"a" * (MAX_NAME + 1)):
        assert reply(serve("EXTERNAL", holder, malformed)) == MALFORMED
