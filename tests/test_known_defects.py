"""What SMTP servers have got wrong, each as a test with a real server. The docstrings name the defect."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.client import Client, connect
from harness.config import start_master
from harness.master import Master
from harness.waiting import wait_for

TRANSACTION = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"


def connected(address: str) -> Client:
    """A client that has sent HELO."""
    client = Client(address)
    assert client.banner.startswith("220 ")
    assert client.code(b"HELO client.example.net\r\n") == 250
    return client


def begin(client: Client) -> None:
    """Send the commands up to the content in one packet."""
    client.send(TRANSACTION)
    assert client.codes(3) == [250, 250, 354]


LISTENS: dict[str, dict[str, Any]] = {
    "usual": {},
    "fix": {"allow_bare_newlines": "fix"},
    "small": {"max_message_size": 1000, "max_line_length": 512, "max_errors": 3, "max_idle_commands": 5},
    "impatient": {"content_timeout": 1.0, "command_timeout": 1.0},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    directory = tmp_path_factory.mktemp("server")
    store = directory / "store"
    store.mkdir()
    with start_master(directory, "scripted:Scripted", [*LISTENS.values()], options={"path": str(store)}) as running:
        yield running


def address_of(server: Master, name: str) -> str:
    return server.all_addresses[[*LISTENS].index(name)]


@pytest.mark.parametrize("name", ["usual", "fix"])
@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r"])
def test_mended_newlines_end_no_data(server: Master, name: str, end: bytes) -> None:
    """Mending bare newlines turned LF.LF or LF.CRLF into the end of data, and ran the rest as commands."""
    with connected(address_of(server, name)) as client:
        begin(client)
        client.send(b"one" + end, TRANSACTION, b"two\r\n.\r\n", b"NOOP\r\n")
        assert client.codes(2) == [250 if name == "fix" else 554, 250]
        assert client.code(b"QUIT\r\n") == 221
        assert client.rest() == b""


@pytest.mark.parametrize(
    ("name", "code", "content"), [("usual", 554, b"bare\nnewline\r\n"), ("small", 552, b"large" * 1000 + b"\r\n")]
)
def test_a_refusal_waits_for_the_end_of_the_content(server: Master, name: str, code: int, content: bytes) -> None:
    """The refusal of a content was sent in mid-body, and the rest of the body ran as commands."""
    with connected(address_of(server, name)) as client:
        begin(client)
        client.send(content, b"RSET\r\nFOO\r\nFOO\r\nFOO\r\nQUIT\r\n")
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.socket.settimeout(20)
        client.send(b".\r\n")
        assert client.socket.recv(3) == str(code).encode()
        client.reply()
        assert client.code(b"NOOP\r\n") == 250


def test_what_follows_the_final_dot_is_commands(server: Master) -> None:
    """Bytes after the final dot in the same packet were taken for one command."""
    with connected(address_of(server, "usual")) as client:
        begin(client)
        client.send(b"x\r\n.\r\nNOOP\r\nRSET\r\n" + TRANSACTION)
        assert client.codes(6) == [250, 250, 250, 250, 250, 354]
        client.send(b"y\r\n.\r\nQUIT\r\n")
        assert client.codes(2) == [250, 221]


def test_a_split_end_of_data_costs_nothing(server: Master) -> None:
    """An end of data split over two packets cost a second, over three it hung, and so did an empty message."""
    began = time.monotonic()
    with connected(address_of(server, "usual")) as client:
        for _ in range(4):
            for packets in ([b"x\r\n.", b"\r\n"], [b"x\r", b"\n.", b"\r", b"\n"], [b".\r\n"], [b".", b"\r", b"\n"]):
                begin(client)
                client.send(*packets)
                assert client.codes(1) == [250]
    assert time.monotonic() - began < 4


def test_content_may_take_as_long_as_it_flows(server: Master) -> None:
    """DATA was cut off at a fixed total time although octets flowed."""
    with connected(address_of(server, "impatient")) as client:
        begin(client)
        for _ in range(14):
            client.send(b"slowly\r\n")
            time.sleep(0.2)
        assert client.code(b".\r\n") == 250


def test_silence_is_cut_off(server: Master) -> None:
    """The other half: a client that sends nothing any more is let go, with a reply."""
    with connected(address_of(server, "impatient")) as one, connected(address_of(server, "impatient")) as two:
        begin(one)
        one.send(b"and then")
        assert one.reply().startswith("421 4.4.2 ")
        assert two.reply().startswith("421 4.4.2 ")
        assert one.rest() == two.rest() == b""


def test_a_command_in_drops_is_cut_off(server: Master) -> None:
    """A client that sent one octet of a command now and then was waited for without end."""
    with connected(address_of(server, "impatient")) as client:
        # Whole commands may go on for longer than the timeout of one.
        for _ in range(4):
            time.sleep(0.4)
            assert client.code(b"NOOP\r\n") == 250
        began = time.monotonic()
        client.socket.settimeout(0.1)
        said = b""
        while not said:
            assert time.monotonic() - began < 8
            client.send(b"x")
            try:
                said = client.socket.recv(100)
            except TimeoutError:
                pass
        assert said.startswith(b"421 4.4.2 ")


def test_rcpt_before_mail_is_refused(server: Master) -> None:
    """RCPT before MAIL was accepted."""
    with connected(address_of(server, "usual")) as client:
        assert client.code(b"RCPT TO:<b@example.com>\r\n") == 503
        assert client.code(b"DATA\r\n") == 503


def test_a_line_is_one_command(server: Master) -> None:
    """An over-long line became several commands, and a command split over packets two unknown ones."""
    with connected(address_of(server, "small")) as client:
        client.send(b"NOOP " + b"\rNOOP " * 200, b"NOOP " * 200, b"\r\nNOOP\r\n")
        assert client.codes(2) == [500, 250]
        client.send(b"NO", b"OP", b"\r", b"\n", b"N", b"OOP\r\n")
        assert client.codes(2) == [250, 250]


@pytest.mark.parametrize("sender", ["data-raise", "data-full", "data-reject", "data-number"])
def test_a_failed_message_ends_its_transaction(server: Master, sender: str) -> None:
    """After an exception in the handler of a message the envelope was not reset, and the next MAIL refused."""
    with connected(address_of(server, "usual")) as client:
        for _ in range(2):
            client.send(TRANSACTION.replace(b"<a@", f"<{sender}@".encode()))
            assert client.codes(3) == [250, 250, 354]
            assert client.code(b"x\r\n.\r\n") in (451, 452, 550)
        begin(client)
        assert client.code(b"x\r\n.\r\n") == 250


def test_a_spool_that_fails_makes_no_commands(tmp_path: Path) -> None:
    """A content that could not be stored was left half read, and its rest ran as commands."""
    settings = {"spool_directory": str(tmp_path / "spool"), "spool_memory": 100}
    (tmp_path / "spool").mkdir()
    with start_master(tmp_path, "scripted:Plain", [{}], options={"path": str(tmp_path)}, settings=settings) as server:
        with connected(server.address) as client:
            begin(client)
            (tmp_path / "spool").rmdir()
            client.send(b"x" * 200 + b"\r\n", b"QUIT\r\n" * 100, b".\r\nNOOP\r\n")
            assert client.codes(2) == [451, 250]
            # What fits in memory is not concerned, and when the directory is back nothing is.
            begin(client)
            assert client.code(b"x\r\n.\r\n") == 250
            (tmp_path / "spool").mkdir()
            begin(client)
            assert client.code(b"x" * 200 + b"\r\n.\r\n") == 250
        assert list((tmp_path / "spool").iterdir()) == []


def test_limits_belong_to_a_listener(server: Master) -> None:
    """Limits were held on a class: one connection changed them for all."""
    with connected(address_of(server, "small")) as small, connected(address_of(server, "usual")) as usual:
        for _ in range(2):
            assert small.code(b"MAIL FROM:<a@example.com> SIZE=1001\r\n") == 552
            assert usual.code(b"MAIL FROM:<a@example.com> SIZE=1001\r\n") == 250
            assert usual.code(b"RSET\r\n") == 250
        for _ in range(10):
            usual.code(b"FOO\r\n")
        assert small.code(b"FOO\r\n") == 500
        assert small.code(b"NOOP\r\n") == 421
        assert usual.code(b"NOOP\r\n") == 250
    with connected(address_of(server, "small")) as small:
        assert small.code(b"NOOP\r\n") == 250


def test_what_a_hook_edits_is_its_own(server: Master) -> None:
    """The list of extensions that a hook edited stayed so for the next session."""
    for _ in range(2):
        with connected(address_of(server, "usual")) as one, connected(address_of(server, "usual")) as two:
            one.send(b"EHLO edit.example.net\r\n")
            assert one.reply().endswith("\n250 XPING")
            two.send(b"EHLO client.example.net\r\n")
            assert two.reply().endswith("\n250 LIMITS RCPTMAX=1000 MAILMAX=10000")


def test_the_banner_does_not_wait(server: Master) -> None:
    """A wait of 100 ms before each banner capped the rate."""
    times = []
    for _ in range(20):
        began = time.monotonic()
        with Client(address_of(server, "usual")) as client:
            assert client.banner.startswith("220 ")
        times.append(time.monotonic() - began)
    assert min(times) < 0.05


def test_half_open_connections_leak_nothing(server: Master) -> None:
    """Connections of health checks that were opened and dropped leaked descriptors."""
    address = address_of(server, "impatient")
    reset = struct.pack("ii", 1, 0)
    with connected(address_of(server, "usual")) as client:
        wait_for(lambda: _settled(server), 10)
        before = _descriptors(server)
        kept = []
        for number in range(300):
            sock = connect(address)
            if number % 3 == 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                sock.close()
            elif number % 3 == 1:
                sock.close()
            else:
                # Silent for ever: the server has to let it go by itself.
                kept.append(sock)
        wait_for(lambda: _descriptors(server) <= before, 20)
        for sock in kept:
            sock.close()
        assert client.code(b"NOOP\r\n") == 250
        wait_for(lambda: _descriptors(server) <= before, 20)


def _descriptors(server: Master) -> int:
    """How many descriptors the only worker has open."""
    (worker,) = server.workers().values()
    return len(os.listdir(f"/proc/{worker}/fd"))


def _settled(server: Master) -> bool:
    # For longer than the sessions of earlier tests may linger.
    count = _descriptors(server)
    time.sleep(1.5)
    return _descriptors(server) == count


def _calls(path: Path) -> list[list[Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("kind", ["Whole", "Streamed"])
def test_every_hook_is_called(tmp_path: Path, kind: str) -> None:
    """A documented hook was never called."""
    path = tmp_path / "calls"
    content = "on_message" if kind == "Whole" else "on_data"
    listens = [{"max_message_size": 100}]
    with start_master(tmp_path, f"recording:{kind}", listens, options={"path": str(path)}) as server:
        expected: list[list[Any]] = [["on_start", 0]]

        def called(*calls: list[Any]) -> None:
            expected.extend(calls)
            wait_for(lambda: len(_calls(path)) >= len(expected), 10)
            assert _calls(path)[1:] == expected[1:]

        with Client(server.address) as client:
            called(["on_connect", "smtp://127.0.0.1:0"])
            client.code(b"HELO h.example\r\n")
            called(["on_helo", "h.example"])
            client.code(b"EHLO e.example\r\n")
            called(["on_ehlo", "e.example", 8])
            client.code(b"VRFY someone\r\n")
            client.code(b"EXPN list\r\n")
            client.code(b"FOO bar baz\r\n")
            called(["on_vrfy", "VRFY", "someone"], ["on_vrfy", "EXPN", "list"], ["on_command", "FOO", "bar baz"])
            client.code(b"MAIL FROM:<a@example.com> SIZE=5\r\n")
            called(["on_mail", "a@example.com", {"SIZE": 5}])
            client.code(b"RCPT TO:<b@example.com>\r\n")
            assert client.code(b"RCPT TO:<raise@example.com>\r\n") == 451
            called(["on_rcpt", "b@example.com", 0], ["on_rcpt", "raise@example.com", 1], ["on_error", "as asked"])
            client.code(b"RSET\r\n")
            called(["on_reset", "a@example.com"])
            client.send(TRANSACTION)
            assert client.codes(3) == [250, 250, 354]
            called(["on_mail", "a@example.com", {}], ["on_rcpt", "b@example.com", 0])
            client.code(b"x\r\n.\r\n")
            called([content, "x\r\n"])
            # A new EHLO, and a content that the protocol refuses, end a transaction too.
            client.code(b"MAIL FROM:<c@example.com>\r\n")
            client.code(b"EHLO e.example\r\n")
            called(["on_mail", "c@example.com", {}], ["on_reset", "c@example.com"], ["on_ehlo", "e.example", 8])
            begin(client)
            assert client.code(b"x" * 200 + b"\r\n.\r\n") == 552
            called(["on_mail", "a@example.com", {}], ["on_rcpt", "b@example.com", 0], ["on_reset", "a@example.com"])
            client.code(b"MAIL FROM:<d@example.com>\r\n")
            client.code(b"QUIT\r\n")
            called(["on_mail", "d@example.com", {}], ["on_reset", "d@example.com"], ["on_disconnect", "quit"])
        with Client(server.address):
            called(["on_connect", "smtp://127.0.0.1:0"])
        wait_for(lambda: _calls(path)[-1][0] == "on_disconnect", 10)
        assert [call[0] for call in _calls(path)[len(expected) :]] == ["on_error", "on_disconnect"]
    assert _calls(path)[-1] == ["on_stop"]
    assert [call[0] for call in _calls(path)].count("on_start") == 1


def test_a_hook_keeps_its_deadline_after_a_refusal(tmp_path: Path) -> None:
    """A hook that hung after the protocol had refused what it read was never ended."""
    listens = [{"max_message_size": 100, "message_timeout": 0.5}]
    with (
        start_master(tmp_path, "recording:Hanging", listens, options={"path": os.devnull}) as server,
        connected(server.address) as client,
    ):
        begin(client)
        client.send(b"x" * 50)
        time.sleep(0.1)
        client.send(b"x" * 200 + b"\r\n.\r\n")
        client.socket.settimeout(10)
        assert client.codes(1) == [552]
        assert client.code(b"NOOP\r\n") == 250
