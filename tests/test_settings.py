"""gsmtp/settings.py: values in, settings or one line out."""

from __future__ import annotations

import dataclasses
import json

import pytest

from gsmtp import cli
from gsmtp.binds import parse_bind
from gsmtp.settings import ListenerSettings, Settings, SettingsError, build, from_json, parse_value, to_json


def test_every_setting_is_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for kind in (Settings, ListenerSettings):
        for item in dataclasses.fields(kind):
            (at,) = [at for at, line in enumerate(lines) if line.split(" = ")[0] == f"  {item.name}"]
            assert lines[at + 1] == f"      {item.metadata['help']}"
            assert len(item.metadata["help"]) > 10


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("smtp://127.0.0.1:25", ("smtp", "127.0.0.1", 25)),
        ("smtp://[::1]:2525", ("smtp", "::1", 2525)),
        ("smtp://[::]", ("smtp", "::", 25)),
        ("smtp://mx.example", ("smtp", "mx.example", 25)),
        ("127.0.0.1:0", ("smtp", "127.0.0.1", 0)),
        ("[::1]:0", ("smtp", "::1", 0)),
        (":2525", ("smtp", "", 2525)),
        ("smtp+unix:/run/x:y", ("smtp+unix", "/run/x:y", 0)),
        ("smtp+unix:///run/x", ("smtp+unix", "/run/x", 0)),
    ],
)
def test_binds(text: str, found: tuple[str, str, int]) -> None:
    assert parse_bind(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "smtp://127.0.0.1:x",
        "smtp://127.0.0.1:-1",
        "smtp://127.0.0.1:65536",
        "smtp://127.0.0.1:",
        "smtp://::1",
        "smtp://[::1",
        "smtp://::1]:25",
        "smtp://a b:25",
        "smtp://a/b:25",
        "smtp://a\n:25",
        "smtp+unix:x",
        "smtp+unix:",
        "ftp://127.0.0.1:25",
        "smtp://127.0.0.1:٢٥",
    ],
)
def test_no_binds(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_bind(text)
    assert text.strip() in str(caught.value) or repr(text)[1:-1] in str(caught.value)


def test_shared_settings_count_for_listeners_that_have_none_of_their_own() -> None:
    found = build(
        {
            "max_recipients": 200,
            "command_timeout": 5,
            "listen": [{"bind": "a:1"}, {"bind": "b:2", "max_recipients": 300}],
        }
    )
    assert [each.max_recipients for each in found.listen] == [200, 300]
    assert [each.command_timeout for each in found.listen] == [5.0, 5.0]
    assert isinstance(found.listen[0].command_timeout, float)


@pytest.mark.parametrize("value", [False, True, "fix", "strip"])
def test_bare_newlines(value: object) -> None:
    assert build({"listen": [{"bind": "a:1", "allow_bare_newlines": value}]}).listen[0].allow_bare_newlines is value


@pytest.mark.parametrize(
    "table",
    [
        {"allow_bare_newlines": "maybe"},
        {"allow_bare_newlines": 1},
        {"mixed_results": True},
        {"max_recipients": 99},
        {"limit_ipv6_prefix": 0},
        {"limit_ipv6_prefix": 129},
        {"workers": 1001},
        {"command_timeout": 1e9},
        {"max_message_size": 2**53 + 1},
        {"max_recipients": 100.0},
        {"max_recipients": "100"},
        {"hide": "SIZE"},
        {"hide": [1]},
        {"command_timeout": True},
        {"command_timeout": float("nan")},
        {"hook_timeout": 0},
        {"log_format": "xml"},
        {"log_level": "INFO"},
        {"workers": -1},
        {"user": 0},
        {"chdir": "a\0b"},
        {"bind": "a:1"},
        {"listen": {"bind": "a:1"}},
        {"listen": ["a:1"]},
        {"listen": [{"bind": 25}]},
        {"handler": "a:B"},
        {"Workers": 1},
    ],
)
def test_refused(table: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        build(table, "here: ")
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "binds",
    [
        ["smtp+unix:/x", "lmtp+unix:/y/../x"],
        ["smtp://a:1", "a:1"],
        ["smtp+unix:/x", "smtp+unix:/x"],
        ["[::1]:1", "smtp://[::1]:1"],
        ["a:1", "lmtp://a:1"],
    ],
)
def test_twice_the_same(binds: list[str]) -> None:
    found = build({"handler": {"class": "a:B"}, "listen": [{"bind": bind, "hostname": "x"} for bind in binds]})
    with pytest.raises(SettingsError, match="given twice"):
        found.check()


def test_any_free_port_may_be_asked_for_twice() -> None:
    both = [{"bind": "smtp://127.0.0.1:0", "hostname": "x"}] * 2
    build({"handler": {"class": "a:B"}, "listen": both}).check()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3.5", 3.5),
        ("true", True),
        ('"3"', "3"),
        ('["a", "b"]', ["a", "b"]),
        ("fix", "fix"),
        ("/var/mail", "/var/mail"),
        ("", ""),
        ("1\nb = 2", "1\nb = 2"),
        ("x # y", "x # y"),
        ("[" * 10_000, "[" * 10_000),
    ],
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value("unknown", text) == value


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("tls_minimum", "1.3", "1.3"),
        ("banner", "42", "42"),
        ("banner", "2020-01-01", "2020-01-01"),
        ("banner", '"42"', "42"),
        ("user", "true", "true"),
        ("allow_bare_newlines", "true", True),
        ("allow_bare_newlines", "fix", "fix"),
        ("workers", "42", 42),
        ("hide", '["SIZE"]', ["SIZE"]),
    ],
)
def test_texts_of_the_command_line_need_no_quotes(key: str, text: str, value: object) -> None:
    assert parse_value(key, text) == value


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("mx.example.org", True),
        ("localhost", True),
        ("my_host-1", True),
        ("a" * 63 + ".b", True),
        ("[192.0.2.1]", True),
        ("[IPv6:2001:db8::1]", True),
        ("a" * 64 + ".b", False),
        ("a." * 127 + "bc", False),
        ("a..b", False),
        (".a", False),
        ("a.", False),
        ("-a", False),
        ("a-", False),
        ("a b", False),
        ("a\n", False),
        ("é.example", False),
        ("[]", False),
        ("[192.0.2.256]", False),
        ("[2001:db8::1]", False),
        ("[IPv6:192.0.2.1]", False),
        ("[192.0.2.1", False),
    ],
)
def test_hostnames(name: str, good: bool) -> None:
    found = build({"handler": {"class": "a:B"}, "listen": [{"bind": "a:1", "hostname": name}]})
    if good:
        found.check()
    else:
        with pytest.raises(SettingsError, match="hostname is no domain name"):
            found.check()


def test_to_the_workers_and_back() -> None:
    found = build({"handler": {"class": "a:B", "x": [1]}, "hide": ["SIZE"], "listen": [{"bind": "a:1"}]})
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
