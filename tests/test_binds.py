"""Which listeners of one server are the same address."""

from __future__ import annotations

import pytest

from gsmtp.settings import ListenerSettings, Settings, SettingsError


def check(*binds: str) -> None:
    listeners = [ListenerSettings(bind=bind, hostname="mx.example.org") for bind in binds]
    Settings(handler={"class": "a:B"}, listen=listeners).check()


@pytest.mark.parametrize(
    "binds",
    [
        ("smtp://127.0.0.1:0", "smtp://127.0.0.1:0"),
        ("smtp://[::1]:0", "[::1]:0", "smtp://127.0.0.1:25"),
        ("lmtp://127.0.0.1:0", "lmtp://127.0.0.1:0"),
        ("smtp+unix:/a", "smtp+unix:/b"),
        ("smtp://127.0.0.1:25", "smtp://127.0.0.1:26", "smtp://127.0.0.2:25"),
    ],
)
def test_different(binds: tuple[str, ...]) -> None:
    check(*binds)


@pytest.mark.parametrize(
    "binds", [("smtp+unix:/a", "smtp+unix:/a"), ("smtp://127.0.0.1:25", "127.0.0.1:25"), ("[::]:25", "smtp://[::]:25")]
)
def test_the_same(binds: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="twice"):
        check(*binds)
