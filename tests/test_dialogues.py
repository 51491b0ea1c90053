"""Every dialogue, three ways with the same replies: whole packets, octet by octet, and with a real server."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from dialogue import Script, converse_in_memory, converse_live, parse, scripts
from harness import replies as source
from harness.config import start_master

ALL = scripts()
every = pytest.mark.parametrize("script", ALL, ids=[script.name for script in ALL])
Find = Callable[[Script], tuple[int, Path, ssl.SSLContext]]


@pytest.fixture(scope="module")
def find(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Find]:
    """The port and the store for a script: a server for each handler, with a listener for each set of options."""

    def served(options: dict[str, Any]) -> dict[str, Any]:
        files = {}
        if "tls" in options or options.get("bind", "").startswith("smtps:"):
            files = {"certfile": certificates.main.certfile, "keyfile": certificates.main.keyfile}
        if "client_ca" in options:
            files["client_ca"] = certificates.ca
        return {**options, **files}

    with_certificate, without = certificates.context(certificates.client), certificates.context()
    ports: dict[tuple[str, str], tuple[int, Path]] = {}
    with ExitStack() as servers:

        def found(script: Script) -> tuple[int, Path, ssl.SSLContext]:
            key = (script.handler, str(script.options))
            if key not in ports:
                listens = {str(each.options): each.options for each in ALL if each.handler == script.handler}
                directory = tmp_path_factory.mktemp(script.handler)
                store = directory / "store"
                store.mkdir()
                made = start_master(
                    directory,
                    f"scripted:{script.handler}",
                    [*map(served, listens.values())],
                    options={"path": str(store)},
                )
                server = servers.enter_context(made)
                for listen, address in zip(listens, server.all_addresses, strict=True):
                    ports[script.handler, listen] = (int(address.rpartition(":")[2]), store)
            return *ports[key], with_certificate if "client_ca" in script.options else without

        yield found


@every
def test_whole(script: Script) -> None:
    converse_in_memory(script, bytewise=False)


@every
def test_octet_by_octet(script: Script) -> None:
    converse_in_memory(script, bytewise=True)


@every
def test_live(script: Script, find: Find) -> None:
    converse_live(script, *find(script))


# What no conversation in memory can show, and the test on a network that does.
LIVE = {
    "Service shutting down, try again": "test_tls.test_drain",
    "Timeout, closing connection": "test_timeouts.test_command_timeout",
    "Service not available": "test_hooks.test_a_hook_that_ignores_its_deadline",
    "The client gave the message up": "test_chunking_live.test_a_stream_ends_when_its_message_does",
    "You talk before the greeting": "test_admission.test_early_talkers_are_sent_away",
    "Too many connections from your address at a time": "test_admission.test_sessions_per_address",
    "Too many connections from your address, try again later": "test_admission.test_connections_in_an_interval",
    "Too many failed logins from your address, try again later": "test_admission.test_failed_logins_per_address",
    "Too many messages from your address, try again later": "test_admission.test_messages_and_recipients_per_address",
    "Too many recipients from your address, try again later": "test_admission.test_messages_and_recipients_per_address",
}
# What only a client that computes can bring about.
COMPUTED = {
    "SCRAM channel binding does not match": "test_scram_plus_refuses_another_connection",
    "SCRAM ends with an empty response": "test_scram_ends_with_an_empty_response",
    "SCRAM proof does not match, or the user is not known": "test_nobody_can_prove_to_be_an_unknown_user",
    "SCRAM attribute is not base64": "test_scram_final_message_refused",
}


@pytest.fixture(scope="module")
def heard() -> tuple[set[str], set[str]]:
    """All that the server says in the dialogues, and why AUTH fails in them."""
    said, reasons = zip(*(converse_in_memory(script, bytewise=False) for script in ALL), strict=True)
    return set().union(*said), set().union(*reasons)


def test_every_reply_is_shown(heard: tuple[set[str], set[str]]) -> None:
    """Of those that stand in the source of the protocol and the server: in a dialogue, or in a test named in LIVE."""
    known = source.replies("protocol", "server")
    assert len(known) > 110
    said = "\n".join(sorted(heard[0]))
    for reply in known:
        code, _, rest = reply.pattern.partition(" ")
        shown = re.search(f"(?m)^{code}[ -]{rest}$", said)
        assert shown or re.sub(r"^[\d\\. ]+", "", rest).replace("\\", "") in LIVE, reply


def test_the_tests_named_are_there() -> None:
    here = Path(__file__).parent
    for text, name in LIVE.items():
        module, _, test = name.partition(".")
        source = (here / "server" / f"{module}.py").read_text()
        assert f"def {test}(" in source and text in source, name
    source = (here / "protocol" / "test_sasl_scram.py").read_text()
    assert all(f"def {test}(" in source for test in COMPUTED.values())


def test_every_reason_why_a_mechanism_refuses_is_shown(heard: tuple[set[str], set[str]]) -> None:
    known = source.failures("protocol")
    assert len(known) > 25
    for reason in known:
        shown = any(re.fullmatch(reason.pattern, each) for each in heard[1])
        assert shown or reason.pattern.replace("\\", "") in COMPUTED, reason


def test_a_wrong_reply_is_noticed(find: Find) -> None:
    script = parse("wrong", "S: 220 mx.example.org ESMTP gsmtp\nC: NOOP\nS: 250 2.0.0 Okay\n")
    with pytest.raises(AssertionError):
        converse_in_memory(script, bytewise=False)
    with pytest.raises(AssertionError):
        converse_live(script, *find(script))


def test_a_message_that_nobody_expects_is_noticed(find: Find) -> None:
    text = (Path(__file__).parent / "dialogues" / "message.txt").read_text()
    script = parse("unexpected", "\n".join(line for line in text.splitlines() if not line.startswith("=")))
    with pytest.raises(AssertionError):
        converse_in_memory(script, bytewise=False)
    with pytest.raises(AssertionError):
        converse_live(script, *find(script))
