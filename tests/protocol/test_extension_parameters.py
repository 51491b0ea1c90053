"""What EHLO announces, by state and by choice, and the parameters that the extensions bring."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsmtp.protocol.envelope import Session
from gsmtp.protocol.parameters import ByMode, DeliverBy, Notify, OriginalRecipient, ParameterError, Ret
from gsmtp.protocol.server import events
from gsmtp.protocol.server.extensions import EXTENSIONS, Extension, ExtensionSet
from gsmtp.protocol.server.options import Options
from gsmtp.protocol.server.session import ServerSession

TLS = SimpleNamespace(peer={}, channel_bindings={})
OPTIONAL = frozenset(each.keyword for each in EXTENSIONS if each.optional)


def session_with(*, claimed: Any = (), tls: Any = None, **options: Any) -> Any:
    chosen = Options(hostname="mx.example.net", **options)
    session = Session("s")
    session.tls = TLS if tls else None
    return ServerSession(chosen, ExtensionSet(chosen, claimed=claimed), session, lambda: "m")


def say(server: Any, *lines: Any) -> Any:
    """The replies to `lines`, sent at once; content is accepted."""
    server.receive("".join(f"{line}\r\n" for line in lines).encode())
    while (event := server.next_event()) not in (events.NEED_DATA, events.CLOSED):
        if isinstance(event, events.Content) and event.last:
            server.answer(event)
    return server.data_to_send().decode().splitlines()


def announced(server: Any) -> Any:
    lines = [line[4:] for line in say(server, "EHLO c")]
    return lines[lines.index("mx.example.net") + 1 :]


def mail(parameters: Any, **options: Any) -> Any:
    """(the last reply to MAIL with `parameters`, what the envelope has)."""
    server = session_with(**{"offer": OPTIONAL, "tls": True, **options})
    reply = say(server, "EHLO c", f"MAIL FROM:<a@example.net> {parameters}")[-1]
    return reply, server.envelope.parameters if server.envelope else None


def rcpt(parameters: Any, before: str = "", **options: Any) -> Any:
    server = session_with(**{"offer": OPTIONAL, **options})
    reply = say(server, "EHLO c", f"MAIL FROM:<a@example.net>{before}", f"RCPT TO:<b@example.net> {parameters}")[-1]
    recipients = server.envelope.recipients
    return reply, recipients[0].parameters if recipients else None


# What is announced


def test_by_default_only_what_the_server_itself_keeps_is_announced() -> None:
    assert announced(session_with(tls=True)) == [
        "PIPELINING",
        "SIZE 36700160",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "BINARYMIME",
        "LIMITS RCPTMAX=1000 MAILMAX=10000",
    ]


def test_what_binds_the_handler_is_announced_when_offered_or_claimed() -> None:
    last = [line.split()[0] for line in announced(session_with(offer=OPTIONAL, tls=True))[-len(OPTIONAL) :]]
    assert last == [each.keyword for each in EXTENSIONS if each.optional]
    assert announced(session_with(claimed=("dsn",)))[-1] == "DSN"


def test_what_is_announced_follows_the_session() -> None:
    server = session_with(offer=frozenset({"REQUIRETLS"}))
    assert "REQUIRETLS" not in announced(server)
    assert say(server, "MAIL FROM:<a@example.net> REQUIRETLS")[0].startswith("555 5.5.4")
    server.session.tls = TLS
    server.receive(b"EHLO c\r\n")
    server.next_event()
    assert server.data_to_send().decode().splitlines()[-1] == "250 REQUIRETLS"
    assert say(server, "MAIL FROM:<a@example.net> REQUIRETLS")[0].startswith("250")


def test_offers_are_made_once_for_each_state() -> None:
    options = Options(hostname="h", offer=frozenset({"REQUIRETLS"}))
    extensions = ExtensionSet(options)
    plain, again, secure = Session("1"), Session("2"), Session("3")
    secure.tls = TLS
    assert extensions.offer(plain) is extensions.offer(again)
    assert extensions.offer(plain) is not extensions.offer(secure)


def test_a_condition_of_any_kind_holds_for_its_session_alone() -> None:
    trusted = Extension("XTRUST", mail={"XTRUST": lambda value, options: 1}, when=lambda options, s: s.peer == "friend")
    extensions = ExtensionSet(Options(hostname="h"), claimed=[trusted])
    assert "XTRUST" in extensions.offer(Session("1", "friend")).lines
    assert "XTRUST" not in extensions.offer(Session("2", "stranger")).lines


@pytest.mark.parametrize("hidden", ["8BITMIME", "CHUNKING", "BINARYMIME"])
def test_binarymime_needs_its_companions(hidden: str) -> None:
    lines = announced(session_with(hide=frozenset({hidden})))
    assert hidden not in lines
    assert "BINARYMIME" not in lines
    assert mail("BODY=BINARYMIME", hide=frozenset({hidden}))[0][:9] in ("501 5.5.4", "555 5.5.4")


def test_hide_wins_over_offer() -> None:
    assert "DSN" not in announced(session_with(offer=frozenset({"DSN"}), hide=frozenset({"DSN"})))


@pytest.mark.parametrize(
    ("recipients", "transactions", "line"),
    [(100, 0, "LIMITS RCPTMAX=100"), (1, 5, "LIMITS RCPTMAX=1 MAILMAX=5"), (10**7, 0, "LIMITS RCPTMAX=999999")],
)
def test_limits_says_what_the_options_are(recipients: int, transactions: int, line: str) -> None:
    assert line in announced(session_with(max_recipients=recipients, max_transactions=transactions))


def test_arguments_of_deliverby_and_mt_priority() -> None:
    lines = announced(session_with(offer=OPTIONAL, min_deliver_by=240, priority_profile="MIXER"))
    assert "DELIVERBY 240" in lines
    assert "MT-PRIORITY MIXER" in lines


# Parameters


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("SIZE=1000", "SIZE", 1000),
        ("size=00000000000000000001", "SIZE", 1),
        ("BODY=binarymime", "BODY", "BINARYMIME"),
        ("BODY=8bitMIME", "BODY", "8BITMIME"),
        ("RET=full", "RET", Ret.FULL),
        ("RET=HDRS", "RET", Ret.HDRS),
        ("ENVID=QQ+2B+3D+20314159", "ENVID", "QQ+= 314159"),
        ("ENVID=" + "x" * 100, "ENVID", "x" * 100),
        ("REQUIRETLS", "REQUIRETLS", True),
        ("MT-PRIORITY=-9", "MT-PRIORITY", -9),
        ("MT-PRIORITY=0", "MT-PRIORITY", 0),
        ("mt-priority=9", "MT-PRIORITY", 9),
        ("BY=120;R", "BY", DeliverBy(120, ByMode.RETURN, False)),
        ("BY=+999999999;rt", "BY", DeliverBy(999999999, ByMode.RETURN, True)),
        ("BY=-40;N", "BY", DeliverBy(-40, ByMode.NOTIFY, False)),
        ("BY=0;NT", "BY", DeliverBy(0, ByMode.NOTIFY, True)),
    ],
)
def test_mail_parameters_are_typed(text: str, name: str, value: Any) -> None:
    reply, parameters = mail(text)
    assert reply.startswith("250 2.1.0")
    assert parameters == {name: value}
    assert type(parameters[name]) is type(value)


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("SIZE", "501 5.5.4"),
        ("SIZE=", "501 5.5.4"),
        ("SIZE=abc", "501 5.5.4"),
        ("SIZE=-1", "501 5.5.4"),
        ("SIZE=\u0661", "501 5.5.4"),
        ("SIZE=123456789012345678901", "501 5.5.4"),
        ("SIZE=36700161", "552 5.3.4"),
        ("BODY=9BIT", "501 5.5.4"),
        ("RET", "501 5.5.4"),
        ("RET=HDR", "501 5.5.4"),
        ("RET=FULL RET=FULL", "501 5.5.4"),
        ("ENVID", "501 5.5.4"),
        ("ENVID=a+b", "501 5.5.4"),
        ("ENVID=a+2b", "501 5.5.4"),
        ("ENVID=a+", "501 5.5.4"),
        ("ENVID=a+0D+0Ab", "501 5.5.4"),
        ("ENVID=a+FF", "501 5.5.4"),
        ("ENVID=" + "x" * 101, "501 5.5.4"),
        ("REQUIRETLS=yes", "501 5.5.4"),
        ("MT-PRIORITY", "501 5.5.4"),
        ("MT-PRIORITY=10", "501 5.5.4"),
        ("MT-PRIORITY=-0", "501 5.5.4"),
        ("MT-PRIORITY=+1", "501 5.5.4"),
        ("BY", "501 5.5.4"),
        ("BY=120", "501 5.5.4"),
        ("BY=120;X", "501 5.5.4"),
        ("BY=1234567890;N", "501 5.5.4"),
        ("BY=0;R", "501 5.5.4"),
        ("BY=-1;RT", "501 5.5.4"),
        ("NOTIFY=NEVER", "555 5.5.4"),
        ("XUNKNOWN=1", "555 5.5.4"),
    ],
)
def test_bad_mail_parameters_are_refused_and_the_session_goes_on(text: str, reply: str) -> None:
    assert mail(text)[0].startswith(reply)
    server = session_with(offer=OPTIONAL, tls=True)
    assert say(server, "EHLO c", f"MAIL FROM:<> {text}", "MAIL FROM:<>")[-1].startswith("250 2.1.0")


def test_deliverby_has_a_least_time_with_r_only() -> None:
    assert mail("BY=239;R", min_deliver_by=240)[0].startswith("555 5.5.4")
    assert mail("BY=240;R", min_deliver_by=240)[0].startswith("250")
    assert mail("BY=1;N", min_deliver_by=240)[0].startswith("250")


@pytest.mark.parametrize("text", ["RET=FULL", "REQUIRETLS", "MT-PRIORITY=1", "BY=1;N"])
def test_what_is_not_offered_is_unknown(text: str) -> None:
    assert mail(text, offer=frozenset())[0].startswith("555 5.5.4")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("NOTIFY=never", "NOTIFY", frozenset({Notify.NEVER})),
        ("NOTIFY=SUCCESS,failure,DELAY", "NOTIFY", frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY})),
        ("ORCPT=rfc822;Bob+2Bx@example.net", "ORCPT", OriginalRecipient("rfc822", "Bob+x@example.net")),
        (r"ORCPT=UTF-8;b\x{E9}b@example.net", "ORCPT", OriginalRecipient("utf-8", "b\u00e9b@example.net")),
        (r"ORCPT=utf-8;\x{1F600}@example.net", "ORCPT", OriginalRecipient("utf-8", "\U0001f600@example.net")),
    ],
)
def test_rcpt_parameters_are_typed(text: str, name: str, value: Any) -> None:
    reply, parameters = rcpt(text)
    assert reply.startswith("250 2.1.5")
    assert parameters == {name: value}


@pytest.mark.parametrize(
    "text",
    [
        "NOTIFY",
        "NOTIFY=SOMETIMES",
        "NOTIFY=NEVER,SUCCESS",
        "NOTIFY=SUCCESS,",
        "NOTIFY=SUCCESS, DELAY",
        "ORCPT",
        "ORCPT=bob@example.net",
        "ORCPT=rfc822;",
        "ORCPT=;bob",
        "ORCPT=rfc.822;bob",
        "ORCPT=rfc822;bob+0A@example.net",
        "ORCPT=rfc822;bob+ff",
        "ORCPT=rfc822;" + "x" * 500,
        r"ORCPT=utf-8;\x{D800}@example.net",
        r"ORCPT=utf-8;\x{110000}@example.net",
        r"ORCPT=utf-8;\x{0A}@example.net",
        r"ORCPT=utf-8;a\b@example.net",
    ],
)
def test_bad_rcpt_parameters_are_refused(text: str) -> None:
    assert rcpt(text)[0].startswith("501 5.5.4")


def test_orcpt_beyond_ascii_needs_smtputf8() -> None:
    text = "ORCPT=utf-8;b\u00e9b@example.net"
    assert rcpt(text)[0].startswith("553 5.6.7")
    assert rcpt(text, " SMTPUTF8")[1] == {"ORCPT": OriginalRecipient("utf-8", "b\u00e9b@example.net")}


# A handler's own


def parse_ticket(value: Any, options: Any) -> Any:
    if value is None or not value.isdigit():
        raise ParameterError(501, "5.5.4", "XTICKET takes a number")
    return int(value)


TICKET = Extension("XTICKET", lambda options: "1", {"XTICKET": parse_ticket}, {"XSEAT": parse_ticket})


def test_a_handler_claims_parameters_of_its_own() -> None:
    server = session_with(claimed=(TICKET,))
    assert announced(server)[-1] == "XTICKET 1"
    assert say(server, "MAIL FROM:<> XTICKET=x")[0] == "501 5.5.4 XTICKET takes a number"
    say(server, "MAIL FROM:<> xticket=42", "RCPT TO:<b@example.net> XSEAT=7")
    assert server.envelope.parameters == {"XTICKET": 42}
    assert server.envelope.recipients[0].parameters == {"XSEAT": 7}


@pytest.mark.parametrize(
    ("claimed", "offer", "why"),
    [
        (("DNS",), frozenset(), "there is no extension DNS"),
        ((), frozenset({"NOSUCH"}), "there is no extension NOSUCH"),
        ((Extension("SIZE"),), frozenset(), "claims SIZE"),
        ((Extension("X", mail={"SIZE": parse_ticket}),), frozenset(), "claims parameter SIZE"),
        ((Extension("X", rcpt={"NOTIFY": parse_ticket}),), frozenset(), "claims parameter NOTIFY"),
        ((TICKET, TICKET), frozenset(), "which another has"),
    ],
)
def test_claims_that_cannot_be_kept_are_refused(claimed: Any, offer: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ExtensionSet(Options(hostname="h", offer=offer), claimed=claimed)


@pytest.mark.parametrize("name", ["", "lower", "-X", "X Y", "X=1"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        Extension(name)
    with pytest.raises(ValueError, match="not the name"):
        Extension("X", mail={name: parse_ticket})


def test_a_parameter_error_is_a_refusal() -> None:
    with pytest.raises(ValueError, match="no refusal"):
        ParameterError(250, "2.0.0", "Ok")


_NAMES = sorted({name for each in EXTENSIONS for name in (*each.mail, *each.rcpt)})
_VALUES = st.one_of(
    st.text(st.sampled_from("0123456789+-;,.=ABCDEFRNTabx{}\\<>@ \t\0\x7f\x85ıſüＦ\u2028"), max_size=30),
    st.sampled_from(["7BIT", "binarymime", "FULL", "NEVER,DELAY", "utf-8;\\x{D800}", "rfc822;+00", "9" * 25, "-0"]),
)


_PAIRS = st.tuples(st.sampled_from(_NAMES) | st.text(max_size=3), st.none() | _VALUES)
_OPTIONS = Options(hostname="mx.example.net", offer=OPTIONAL)
_ALL = ExtensionSet(_OPTIONS)


@settings(max_examples=1000, deadline=None)
@given(st.lists(_PAIRS, max_size=3), st.booleans())
def test_whatever_stands_behind_an_address(parameters: Any, rcpt: Any) -> None:
    """A refusal with a well-formed reply, or values without control characters; the session goes on."""
    text = " ".join(name if value is None else f"{name}={value}" for name, value in parameters)
    line = "RCPT TO:<b@example.net>" if rcpt else "MAIL FROM:<a@example.net>"
    if "\n" in text or "\r" in text:
        return
    session = Session("s")
    session.tls = TLS
    server = ServerSession(_OPTIONS, _ALL, session, lambda: "m")
    say(server, "EHLO c", *(["MAIL FROM:<a@example.net> SMTPUTF8"] if rcpt else []))
    server.receive(f"{line} {text}\r\n".encode("utf-8", "surrogatepass"))
    while server.next_event() is not events.NEED_DATA:
        pass
    (reply,) = server.data_to_send().decode("ascii").splitlines()
    assert re.fullmatch(r"(250 2\.1\.[05]|501 5\.5\.4|552 5\.3\.4|553 5\.6\.7|555 5\.5\.4|500 5\.5\.2) .+", reply)
    if reply.startswith("250") and server.envelope:
        (values,) = [each.parameters for each in server.envelope.recipients] if rcpt else [server.envelope.parameters]
        for value in values.values():
            shown = value.address if isinstance(value, OriginalRecipient) else str(value)
            # What is decoded will stand in a header: nothing that ends a line.
            assert not re.search(r"[\0\r\n\x85]", shown)
    assert say(server, "NOOP") == ["250 2.0.0 Ok"]
