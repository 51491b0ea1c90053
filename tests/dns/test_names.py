"""Domain names in one form."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from gsmtp.dns.names import ascii_name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("MX.Example.Org.", "mx.example.org"),
        ("_25._tcp.mx.example.org", "_25._tcp.mx.example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("xn--not-an-a-label-.example", "xn--not-an-a-label-.example"),
        (".", ""),
        ("", ""),
    ],
)
def test_ascii_passes(name: str, found: str) -> None:
    assert ascii_name(name) == found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("B\u00fccher.example.", "xn--bcher-kva.example"),
        ("stra\u00dfe.example", "xn--strae-oqa.example"),
        ("_25._tcp.b\u00fccher.example", "_25._tcp.xn--bcher-kva.example"),
        ("b\u00fccher\u3002example", "xn--bcher-kva.example"),
        ("\u4f8b\u3048.\u30c6\u30b9\u30c8", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_others_become_a_labels(name: str, found: str) -> None:
    pytest.importorskip("idna")
    assert ascii_name(name) == found


@pytest.mark.parametrize("name", ["\u2603.example", "\u00fc" * 60 + ".example", "-\u00fc.example"])
def test_what_is_no_name(name: str) -> None:
    pytest.importorskip("idna")
    with pytest.raises(ValueError):
        ascii_name(name)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *more: Any, **others: Any) -> Any:
        if name == "idna":
            raise ImportError(name)
        return original(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert ascii_name("mx.example") == "mx.example"
    with pytest.raises(ValueError, match=r"gsmtp\[idna\]"):
        ascii_name("b\u00fccher.example")
