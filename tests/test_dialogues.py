"""Every dialogue, three ways with the same replies: whole packets, octet by octet, and with a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from certificates import Certificates
from dialogue import Script, converse_in_memory, converse_live, parse, scripts
from server import Server

from gsmtp.protocol import replies
from gsmtp.reply import Reply

ALL = scripts()
every = pytest.mark.parametrize("script", ALL, ids=[script.name for script in ALL])
Find = Callable[[Script], tuple[int, Path]]


@pytest.fixture(scope="module")
def find(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Find]:
    """The port and the store for a script: a server for each handler, with a listener for each set of options."""
    files = {"certfile": certificates.main.certfile, "keyfile": certificates.main.keyfile}
    ports: dict[tuple[str, str], tuple[int, Path]] = {}
    with ExitStack() as servers:

        def found(script: Script) -> tuple[int, Path]:
            key = (script.handler, str(script.options))
            if key not in ports:
                listens = {str(each.options): each.options for each in ALL if each.handler == script.handler}
                served = {key: {**files, **each} if "tls" in each else each for key, each in listens.items()}
                directory = tmp_path_factory.mktemp(script.handler)
                store = directory / "store"
                store.mkdir()
                made = Server(directory, f"scripted:{script.handler}", [*served.values()], options={"path": str(store)})
                server = servers.enter_context(made)
                for listen, port in zip(listens, server.ports, strict=True):
                    ports[script.handler, listen] = (port, store)
            return ports[key]

        yield found


@every
def test_whole(script: Script) -> None:
    converse_in_memory(script, bytewise=False)


@every
def test_octet_by_octet(script: Script) -> None:
    converse_in_memory(script, bytewise=True)


@every
def test_live(script: Script, find: Find) -> None:
    port, store = find(script)
    converse_live(script, port, store)


def test_every_reply_of_the_protocol_is_shown() -> None:
    shown = [line for script in ALL for exchange in script.exchanges for line in exchange.replies]
    # These need a network: tests/server/test_tls.py.
    under_tls = (replies.READY_FOR_TLS, replies.TLS_ACTIVE)
    known = [reply for reply in vars(replies).values() if isinstance(reply, Reply) and reply not in under_tls]
    known += [*replies.LINE_FAULTS.values(), *replies.CONTENT_FAULTS.values()]
    assert len(known) > 25
    for reply in known:
        assert reply.encode().decode().split("\r\n")[0] in shown, reply


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
