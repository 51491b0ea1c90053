"""gsmtp/protocol/server/options.py: what a listener's settings mean for its sessions."""

from __future__ import annotations

import ast
import dataclasses
from typing import Literal

import pytest

from gsmtp.protocol.framing import BareNewlines
from gsmtp.protocol.server.options import Options, PlainOptions, ProtocolSettings


def test_plain_options_arrive_as_they_are() -> None:
    values: dict[str, object] = {}
    for at, item in enumerate(dataclasses.fields(PlainOptions)):
        kind = str(item.type)
        if kind.startswith("Literal"):
            values[item.name] = ast.literal_eval(kind.removeprefix("Literal"))[-1]
        else:
            values[item.name] = {"str": f"x{at}", "bool": True, "int": 5000 + at, "float": 0.5 + at}[kind]
    options = Options.of(ProtocolSettings(**values))  # type: ignore[arg-type]
    assert {name: getattr(options, name) for name in values} == values


@pytest.mark.parametrize(("written", "read"), [(False, "reject"), (True, "accept"), ("fix", "fix"), ("strip", "strip")])
def test_bare_newlines(written: bool | Literal["fix", "strip"], read: BareNewlines) -> None:
    assert Options.of(ProtocolSettings(allow_bare_newlines=written)).allow_bare_newlines == read


def test_extensions_in_any_case() -> None:
    options = Options.of(ProtocolSettings(hide=["size", "Pipelining"], offer=["dsn"]))
    assert options.hide == {"SIZE", "PIPELINING"}
    assert options.offer == {"DSN"}


@pytest.mark.parametrize(
    ("mixed_results", "lmtp", "most"),
    [("tempfail", False, 200), ("single", False, 1), ("tempfail", True, 200), ("single", True, 200)],
)
def test_one_recipient_a_message(mixed_results: Literal["tempfail", "single"], lmtp: bool, most: int) -> None:
    options = Options.of(ProtocolSettings(max_recipients=200, mixed_results=mixed_results), lmtp=lmtp)
    assert (options.max_recipients, options.lmtp) == (most, lmtp)


@pytest.mark.parametrize("written", ["", "never", "offered", "required"])
@pytest.mark.parametrize("hooks", [frozenset[str](), frozenset(("check_password",))])
def test_auth(written: Literal["", "never", "offered", "required"], hooks: frozenset[str]) -> None:
    options = Options.of(ProtocolSettings(auth=written), auth_hooks=hooks)
    assert options.auth == (written or ("offered" if hooks else "never"))
    assert options.auth_hooks == hooks


@pytest.mark.parametrize("written", ["", "never", "offered", "required"])
@pytest.mark.parametrize("default", ["never", "offered"])
def test_starttls(written: Literal["", "never", "offered", "required"], default: Literal["never", "offered"]) -> None:
    settings = ProtocolSettings(tls=written)
    assert Options.of(settings, default_tls=default).tls == (written or default)
    assert Options.of(settings, default_tls=default, implicit_tls=True).tls == "never"


def test_each_secret_gives_other_octets() -> None:
    secrets = {Options.of(ProtocolSettings(), auth_secret=text).auth_secret for text in ("", "a", "b")}
    assert {len(secret) for secret in secrets} == {32}
    assert len(secrets) == 3
