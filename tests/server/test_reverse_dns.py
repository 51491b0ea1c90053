"""ReverseDns of clients, from a DNS server that lies, is silent, and cuts its answers off."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness.nameserver import NameServer, Zone

ASK = Path(__file__).with_name("ask_reverse_dns.py")
ZONE: Zone = {
    ("1.2.0.192.in-addr.arpa.", "PTR"): ["Mail.Example."],
    ("mail.example.", "A"): ["192.0.2.200", "192.0.2.1"],
    ("mail.example.", "AAAA"): ["2001:db8::1"],
    ("1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa.", "PTR"): ["mail.example."],
    ("1.0.0.127.in-addr.arpa.", "PTR"): ["me.example."],
    ("me.example.", "A"): ["127.0.0.1"],
    ("2.0.0.127.in-addr.arpa.", "PTR"): "silence",
    # Somebody else's name
    ("2.2.0.192.in-addr.arpa.", "PTR"): ["bank.example."],
    ("bank.example.", "A"): ["198.51.100.1"],
    # A name that does not exist, or has no address, or one too late
    ("3.2.0.192.in-addr.arpa.", "PTR"): ["gone.example."],
    ("4.2.0.192.in-addr.arpa.", "PTR"): ["silent.example."],
    ("silent.example.", "A"): "silence",
    # The second name is right
    ("5.2.0.192.in-addr.arpa.", "PTR"): ["bank.example.", "right.example."],
    ("right.example.", "A"): ["192.0.2.5"],
    # By way of an alias (RFC 2317)
    ("6.2.0.192.in-addr.arpa.", "CNAME"): ["6.0-127.2.0.192.in-addr.arpa."],
    ("6.0-127.2.0.192.in-addr.arpa.", "PTR"): ["six.example."],
    ("six.example.", "A"): ["192.0.2.6"],
    ("7.2.0.192.in-addr.arpa.", "PTR"): "silence",
    ("8.2.0.192.in-addr.arpa.", "PTR"): "failure",
    ("9.2.0.192.in-addr.arpa.", "PTR"): "garbage",
    # What is no host name
    ("10.2.0.192.in-addr.arpa.", "PTR"): ["192.0.2.10."],
    ("192.0.2.10.", "A"): ["192.0.2.10"],
    ("11.2.0.192.in-addr.arpa.", "PTR"): [r"a\013\010b.example."],
    ("12.2.0.192.in-addr.arpa.", "PTR"): ["."],
    ("13.2.0.192.in-addr.arpa.", "PTR"): [f"n{number}.example." for number in range(60)],
    **{(f"n{number}.example.", "A"): ["192.0.2.13"] for number in range(60)},
}


@pytest.fixture
def server() -> Iterator[NameServer]:
    server = NameServer(ZONE)
    yield server
    server.close()


def ask(
    port: int, rounds: list[list[str]], timeout: float = 2.0, abandon: Sequence[str] = (), **options: Any
) -> dict[str, Any]:
    """What the driver answers, see there."""
    options = {"nameservers": [f"127.0.0.1:{port}"], "timeout": timeout, **options}
    order = json.dumps({"options": options, "rounds": rounds, "abandon": list(abandon)})
    done = subprocess.run([sys.executable, str(ASK)], input=order, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["jobs"] == 0
    return answer


def test_all_kinds_of_answers_at_once(server: NameServer) -> None:
    cases = {
        "192.0.2.1": ["mail.example", True],
        "::ffff:192.0.2.1": ["mail.example", True],
        "2001:db8::1": ["mail.example", True],
        "192.0.2.2": ["bank.example", False],
        "192.0.2.3": ["gone.example", False],
        "192.0.2.4": ["silent.example", False],
        "192.0.2.5": ["right.example", True],
        "192.0.2.6": ["six.example", True],
        "192.0.2.7": None,
        "192.0.2.8": None,
        "192.0.2.9": None,
        "192.0.2.10": None,
        "192.0.2.11": None,
        "192.0.2.12": None,
        "192.0.2.99": None,
        "": None,
        "mx.example": None,
    }
    answer = ask(server.port, [list(cases)], timeout=2.0)
    assert dict(zip(cases, answer["rounds"][0], strict=True)) == cases
    # Two of these took all of their two seconds, in which the event loop went round.
    assert answer["seconds"] > 1.8
    assert answer["started"] < 0.9
    assert answer["longest"] < 0.9
    assert answer["ready"][0][-2:] == [True, True]
    assert not any(answer["ready"][0][:-2])


def test_truncated_answers_are_asked_for_again_by_tcp(server: NameServer) -> None:
    answer = ask(server.port, [["192.0.2.13"]])
    [[[name, verified]]] = answer["rounds"]
    assert name.startswith("n") and verified
    asked = [transport for question, _, transport in server.asked if question.startswith("13.")]
    assert asked == ["udp", "tcp"]


def test_truncated_and_no_tcp() -> None:
    server = NameServer(ZONE, tcp=False)
    try:
        assert ask(server.port, [["192.0.2.13"]], timeout=1.0)["rounds"] == [[None]]
    finally:
        server.close()


def test_no_server_at_all() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        answer = ask(silent.getsockname()[1], [["192.0.2.1"]], timeout=0.5)
    assert answer["rounds"] == [[None]]
    assert answer["seconds"] < 20


def test_answers_are_shared_and_remembered(server: NameServer) -> None:
    answer = ask(server.port, [["192.0.2.1"] * 50, ["192.0.2.1", "192.0.2.99", "192.0.2.99"], ["192.0.2.99"]])
    assert answer["rounds"][0] == [["mail.example", True]] * 50
    assert answer["ready"][1:] == [[True, False, False], [True]]
    assert sorted(kind for _, kind, _ in server.asked) == ["A", "PTR", "PTR"]


def test_memory_stays_bounded(server: NameServer) -> None:
    hosts = [f"203.0.113.{number}" for number in range(100)]
    answer = ask(server.port, [hosts[at : at + 10] for at in range(0, 100, 10)], entries=20)
    assert answer["known"] == 20
    assert answer["rounds"] == [[None] * 10] * 10


def test_more_lookups_than_allowed_are_none_at_once(server: NameServer) -> None:
    answer = ask(server.port, [["192.0.2.7", "192.0.2.1", "192.0.2.2"]], timeout=0.5, max_lookups=2)
    assert answer["rounds"] == [[None, ["mail.example", True], None]]
    assert answer["ready"] == [[False, False, True]]


def test_a_waiter_that_is_killed_leaves_the_lookup_to_others(server: NameServer) -> None:
    answer = ask(server.port, [["192.0.2.1", "192.0.2.4"]], timeout=1.0, abandon=["192.0.2.4"])
    assert answer["rounds"] == [[["mail.example", True], ["silent.example", False]]]
    assert sum(kind == "PTR" and name.startswith("4.") for name, kind, _ in server.asked) == 1


LIVE = """\
from gsmtp import Handler
class Inbox(Handler):
    def on_mail(self, envelope):
        name = envelope.session.name
        return f"{name.name} {name.verified}" if name else "nobody"
    def on_message(self, envelope, message):
        return "by DNS" if b"(me.example [127.0.0.1])" in message.trace else "no name"
"""


def test_a_live_server(server: NameServer, serve: Callable[..., Any]) -> None:
    nameservers = json.dumps([f"127.0.0.1:{server.port}"])
    live = serve("-s", "reverse_lookup=true", "-s", f"nameservers={nameservers}", code=LIVE)
    with live.connect() as talk:
        assert talk.begin()[0] == "250 2.1.0 me.example True"
        assert talk.content(b"x\r\n") == "250 2.0.0 by DNS"
    host, _, port = live.address.rpartition(":")
    with socket.create_connection((host, int(port)), 20, source_address=("127.0.0.2", 0)) as silent:
        assert silent.recv(100).startswith(b"220 ")  # the banner does not wait
    asked = len(server.asked)
    other = serve("-s", f"nameservers={nameservers}", code=LIVE)
    with other.connect() as talk:
        assert talk.begin()[0] == "250 2.1.0 nobody"
        assert talk.content(b"x\r\n") == "250 2.0.0 no name"
    assert not [name for name, *_ in server.asked[asked:] if name.startswith("1.")]
