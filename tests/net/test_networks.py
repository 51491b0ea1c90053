"""Which addresses are in which networks."""

from __future__ import annotations

import pytest

from gsmtp.net.networks import Networks

SOME = Networks(["127.0.0.0/8", "192.0.2.7", "::1/128", "2001:db8::/32", "::ffff:198.51.100.0/120"])


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        (("127.1.2.3", 25), True),
        (("::ffff:127.1.2.3", 25, 0, 0), True),
        (("::ffff:7f01:203", 25, 0, 0), True),
        (("128.0.0.1", 25), False),
        (("192.0.2.7", 25), True),
        (("192.0.2.8", 25), False),
        (("::1", 25, 0, 0), True),
        (("::2", 25, 0, 0), False),
        (("2001:db8:ffff::1", 25, 0, 0), True),
        (("2001:db8::1%eth0", 25, 0, 3), True),
        (("2001:db9::1", 25, 0, 0), False),
        (("198.51.100.200", 25), True),
        (("198.51.101.1", 25), False),
        ("127.0.0.1", True),
        ("::1", True),
        ("", False),
        ("/run/a", False),
        (None, False),
        ((), False),
        (("", 25), False),
        (("mx.example", 25), False),
        (7, False),
    ],
)
def test_members(address: object, inside: bool) -> None:
    assert (address in SOME) is inside
    assert (address in SOME) is inside  # from memory


@pytest.mark.parametrize("address", ["", "/run/a", "\0abstract", b"\0abstract", b""])
def test_unix(address: str | bytes) -> None:
    assert address in Networks(["unix"])
    assert address not in Networks(["0.0.0.0/0", "::/0"])


def test_unix_is_no_network() -> None:
    networks = Networks(["unix"])
    for address in (("127.0.0.1", 25), ("", 25), ("/run/a", 25), "mx.example", None):
        assert address not in networks
    assert "" in networks
    assert ("", 25) not in networks


def test_all_of_ipv6_is_no_ipv4() -> None:
    assert ("::ffff:192.0.2.1", 1, 0, 0) not in Networks(["::/0"])
    assert ("::ffff:192.0.2.1", 1, 0, 0) in Networks(["0.0.0.0/0"])


@pytest.mark.parametrize("text", ["192.0.2.1/24", "192.0.2", "mx.example", "", "::/129", "10.0.0.0/33", "Unix"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="no network") as caught:
        Networks(["127.0.0.1", text])
    assert repr(text)[1:-1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty() -> None:
    assert not Networks()
    assert Networks(["unix"])
    assert ("127.0.0.1", 1) not in Networks([])
    assert repr(Networks(["unix"])) == "Networks(['unix'])"


def test_what_is_remembered_stays_bounded() -> None:
    networks = Networks(["10.0.0.0/8"])
    for number in range(10_000):
        host = f"{10 + number % 2}.0.{number // 250}.{number % 250}"
        assert ((host, 1) in networks) is (number % 2 == 0)
    assert len(networks._answers) <= 4096
