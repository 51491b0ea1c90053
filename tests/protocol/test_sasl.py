"""What all mechanisms have in common: the table, the choice, base64, SASLprep, secrets in no repr, and fuzz."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from exchanges import CONTEXT, SECRET, Directory, converse
from hypothesis import given, settings
from hypothesis import strategies as st

from gsmtp.protocol.sasl import (
    BAD_CREDENTIALS,
    MAX_LINE,
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
    choose,
    decode,
    decode_initial,
    encode,
    encode_initial,
    offered,
    saslprep,
)

HOOKS = frozenset({"check_password", "get_password", "check_token", "check_certificate"})
BINDING = {"tls-exporter": b"E" * 32}
ME = ClientContext(
    user="tim@example.net",
    password="tanstaaf",
    token="to.ken",
    certificate=True,
    host="mx.example.net",
    port=587,
    channel_bindings=BINDING,
)
HANDLER = Directory({"tim@example.net": "tanstaaf"}, {"to.ken": True}, "tim@example.net")


def test_what_is_offered() -> None:
    everything = tuple(MECHANISMS)
    assert offered(HOOKS, tls=True, channel_binding=True, client_certificate=True) == everything
    assert everything == (
        "EXTERNAL",
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-256",
        "OAUTHBEARER",
        "XOAUTH2",
        "CRAM-MD5",
        "PLAIN",
        "LOGIN",
    )
    assert offered(HOOKS, tls=False, channel_binding=True, client_certificate=True) == ()
    assert offered(HOOKS, tls=False, channel_binding=True, client_certificate=True, without_tls=True) == everything[2:]
    assert offered(frozenset(), tls=True, channel_binding=True, client_certificate=True) == ()
    assert offered({"check_password"}, tls=True) == ("PLAIN", "LOGIN")
    assert offered({"get_password"}, tls=True) == ("SCRAM-SHA-256", "CRAM-MD5")
    assert offered({"check_token"}, tls=True) == ("OAUTHBEARER", "XOAUTH2")
    assert offered({"check_certificate"}, tls=True) == ()


def test_the_strongest_that_both_have() -> None:
    left = list(MECHANISMS)
    while left:
        mechanism = choose(replace(ME, offered=tuple(name.lower() for name in reversed(left))), tls=True)
        assert mechanism is not None and mechanism.name == left.pop(0)
    assert choose(ME, tls=True) is None
    everything = replace(ME, offered=(*MECHANISMS, "GSSAPI"))
    for change, name in (
        ({"certificate": False, "channel_bindings": {}}, "SCRAM-SHA-256"),
        ({"certificate": False, "password": None}, "OAUTHBEARER"),
        ({"certificate": False, "password": None, "token": None}, None),
    ):
        chosen = choose(replace(everything, **change), tls=True)
        assert (chosen and chosen.name) == name
    in_clear = replace(ME, offered=("XOAUTH2", "PLAIN", "LOGIN"))
    assert choose(in_clear, tls=False) is None
    assert choose(in_clear, tls=False, without_tls=True) is MECHANISMS["XOAUTH2"]


@pytest.mark.parametrize("name", MECHANISMS)
def test_each_server_with_each_client(name: str) -> None:
    context = replace(CONTEXT, channel_bindings=BINDING, offered=tuple(MECHANISMS))
    client = replace(ME, offered=tuple(MECHANISMS))
    assert converse(name, context, client, HANDLER)[0] == Success("tim@example.net")
    nobody = Directory({"tim@example.net": "other"})
    end, _ = converse(name, context, client, nobody)
    assert isinstance(end, Failure) and end.reply == BAD_CREDENTIALS


@pytest.mark.parametrize("name", sorted(set(MECHANISMS) - {"EXTERNAL"}))
def test_a_client_without_the_means_says_so(name: str) -> None:
    with pytest.raises(SaslError):
        advance(MECHANISMS[name].client(ClientContext()))


@pytest.mark.parametrize("name", sorted(set(MECHANISMS) - {"LOGIN", "CRAM-MD5"}))
def test_a_client_does_not_send_what_would_be_read_as_more_fields(name: str) -> None:
    context = ClientContext(user="a\0b\x01", password="c\0\x01", token="\x01", authzid="\0", channel_bindings=BINDING)
    with pytest.raises(SaslError):
        advance(MECHANISMS[name].client(context))


def test_credentials_are_utf_8() -> None:
    for field in ("user", "password", "token", "authzid", "host"):
        with pytest.raises(SaslError) as error:
            ClientContext(**{field: "sec\udc80ret"})  # type: ignore[arg-type]
        assert error.value.__suppress_context__ and "sec" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in MECHANISMS if "OAUTH" not in name and name != "CRAM-MD5"])
def test_a_client_whose_server_goes_on(name: str) -> None:
    """Every client stops, whatever a server goes on asking."""
    client = MECHANISMS[name].client(ME)
    advance(client)
    with pytest.raises(SaslError):
        for _ in range(5):
            advance(client, b"Password:")


@pytest.mark.parametrize("name", ["LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
def test_a_client_whose_server_accepts_too_early(name: str) -> None:
    client = MECHANISMS[name].client(ME)
    advance(client)
    with pytest.raises(SaslError):
        advance(client, None)


# Base64


@given(st.binary(max_size=300))
def test_base64_and_back(data: bytes) -> None:
    assert decode(encode(data)) == data
    assert decode(encode(data).encode()) == data
    assert decode_initial(encode_initial(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        "=",
        "==",
        "a",
        "ab",
        "abc",
        "ab=",
        "YR==",
        "abcde",
        "ab==ab==",
        "abc=\n",
        " abc=",
        "ab c=",
        "ab*=",
        "=abc",
        "ä===",
        "*",
    ],
)
def test_what_is_not_base64(text: str) -> None:
    for form in (text, text.encode()):
        with pytest.raises(ValueError):
            decode(form)
        if text != "=":
            with pytest.raises(ValueError):
                decode_initial(form)


def test_base64_of_nothing_and_of_too_much() -> None:
    assert encode(b"") == "" and encode_initial(b"") == "="
    assert decode("") == b"" and decode_initial("=") == b"" and decode_initial(b"=") == b""
    assert len(decode("A" * MAX_LINE)) == MAX_LINE // 4 * 3
    with pytest.raises(ValueError):
        decode("A" * (MAX_LINE + 4))


# SASLprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\u0007", None),
        ("\u0627\u0031", None),
        ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
        ("a\u0627", None),
        ("\u00a0x", " x"),
        ("pass word", "pass word"),
        ("", None),
        ("\u00ad", None),
        ("\ue000", None),
        ("\ufffe", None),
        ("\udc80", None),
        ("e\u0301", "\u00e9"),
    ],
)
def test_saslprep(text: str, prepared: str | None) -> None:
    if prepared is None:
        with pytest.raises(ValueError) as error:
            saslprep(text)
        assert not text or text not in str(error.value)
    else:
        assert saslprep(text) == saslprep(text, stored=True) == prepared


def test_saslprep_of_characters_after_unicode_3_2() -> None:
    assert saslprep("\u0221") == "\u0221"
    with pytest.raises(ValueError):
        saslprep("\u0221", stored=True)


@given(st.text())
def test_saslprep_is_stable(text: str) -> None:
    try:
        prepared = saslprep(text)
    except ValueError:
        return
    assert saslprep(prepared) == prepared


# Secrets


def test_no_repr_shows_a_secret() -> None:
    secret = "tanstaaf"
    me = replace(ME, password=secret, token=secret, channel_bindings={"tls-unique": secret.encode()})
    shown = [
        me,
        CONTEXT,
        replace(CONTEXT, secret=secret.encode() * 4),
        CheckPassword("tim", secret),
        CheckToken("tim", secret, "XOAUTH2"),
        Response(secret.encode()),
        ScramCredentials(b"salt", 4096, secret.encode() * 4, secret.encode() * 4),
    ]
    for name, mechanism in MECHANISMS.items():
        client = mechanism.client(me)
        first = advance(client)
        server = mechanism.server(CONTEXT, {"LOGIN": b"tim"}.get(name, first.data if first else None))
        shown += [client, server, first, advance(server)]
    for thing in shown:
        text = f"{thing!r} {thing}"
        assert secret not in text
        assert encode(secret.encode())[:8] not in text
        assert SECRET.decode() not in text


def test_no_failure_shows_a_secret() -> None:
    for response in (b"\0tim\0tanstaaf\0tanstaaf", b"\0tim\0tanstaaf\n", b"tanstaaf\xff", b"\0tim\0tanstaaf"):
        for name in MECHANISMS:
            server = MECHANISMS[name].server(CONTEXT, None if name == "CRAM-MD5" else response)
            step = advance(server)
            while not isinstance(step, Success | Failure):
                assert "tanstaaf" not in repr(step)
                step = advance(server, response if isinstance(step, Challenge) else None)
            assert isinstance(step, Failure)
            assert "tanstaaf" not in repr(step)


# Fuzz

PIECES = st.sampled_from(
    [
        *b"|\0|\x01|,|=|n,,|y,,|p=tls-exporter,,|n=tim|a=tim|r=abc|c=biws|p=|user=|auth=|Bearer to.ken|tim".split(b"|"),
        *b"tanstaaf| |\xff|\xc2\xa0\xd8\xa7|v=|m=|e=|=2C|{}|\r\n|i=4096|s=W22ZaJ0SNY7soEsUEjb6gQ==".split(b"|"),
        *(b"0" * 32, b"x" * 256, b"A" * 43 + b"="),
    ]
)
RESPONSES = st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=10).map(b"".join))
ANSWERS = {
    "CheckPassword": st.sampled_from([True, False, None]),
    "GetPassword": st.sampled_from([None, "tanstaaf", "", "\udc80", ScramCredentials.derive("tanstaaf")]),
    "CheckToken": st.sampled_from([True, False, None, "", "tim"]),
    "CheckCertificate": st.sampled_from([None, "", "tim"]),
}
QUICK = replace(CONTEXT, channel_bindings=BINDING, stored_keys=True)


@settings(max_examples=1500, deadline=None)
@given(st.data(), st.sampled_from(sorted(MECHANISMS)), st.none() | RESPONSES)
def test_whatever_a_client_sends(data: st.DataObject, name: str, initial: bytes | None) -> None:
    """It ends in Success or Failure within five steps, and raises nothing."""
    exchange = MECHANISMS[name].server(QUICK, initial)
    step = advance(exchange)
    for _ in range(5):
        if isinstance(step, Success | Failure):
            break
        if isinstance(step, Challenge):
            step = advance(exchange, data.draw(RESPONSES))
        else:
            step = advance(exchange, data.draw(ANSWERS[type(step).__name__]))
    assert isinstance(step, Success | Failure)
    if isinstance(step, Success):
        assert step.user
    else:
        assert step.reply.code in (501, 535)
        assert set(step.why) <= set(string.printable)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(MECHANISMS)), st.integers(0, 2), st.integers(0, 400), st.integers(1, 255))
def test_one_wrong_octet(name: str, turn: int, place: int, change: int) -> None:
    """An exchange that would succeed, with one octet changed: it ends, and SCRAM sees it."""
    context = replace(QUICK, offered=tuple(MECHANISMS))
    speaker = MECHANISMS[name].client(replace(ME, offered=tuple(MECHANISMS)))
    turns = 0

    def garbled(data: bytes) -> bytes:
        nonlocal turns
        turns += 1
        if turns - 1 != turn or not data:
            return data
        at = place % len(data)
        return data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]

    first = advance(speaker)
    assert isinstance(first, Response)
    listener = MECHANISMS[name].server(context, None if first.data is None else garbled(first.data))
    step = advance(listener)
    while not isinstance(step, Success | Failure):
        if not isinstance(step, Challenge):
            step = advance(listener, HANDLER.answer(step))
            continue
        try:
            spoken = advance(speaker, step.data)
        except SaslError:
            return  # the client has seen it first
        assert isinstance(spoken, Response) and spoken.data is not None
        step = advance(listener, garbled(spoken.data))
    if name.startswith("SCRAM") and turn < 2:
        assert isinstance(step, Failure)


@settings(max_examples=500, deadline=None)
@given(st.data(), st.sampled_from(sorted(MECHANISMS)))
def test_whatever_a_server_sends(data: st.DataObject, name: str) -> None:
    """A client ends within five steps, and raises nothing but SaslError."""
    exchange = MECHANISMS[name].client(ME)
    step = advance(exchange)
    try:
        for _ in range(5):
            if step is None:
                break
            step = advance(exchange, data.draw(st.none() | RESPONSES))
        assert step is None
    except SaslError:
        pass
