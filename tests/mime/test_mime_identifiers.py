"""Message identifiers and boundaries."""

from __future__ import annotations

from gsmtp import mime


def test_identifiers_are_unique() -> None:
    assert len({mime.make_message_id("x.example") for _ in range(100)}) == 100
    assert len({mime.make_boundary() for _ in range(100)}) == 100
    assert mime.make_message_id("x.example").endswith("@x.example>")
    assert mime.decode(f"Message-ID: {mime.make_message_id()}\r\n\r\n".encode(), strict=True).message_id
