"""The content of a part, whole and in pieces."""

from __future__ import annotations

import binascii
import mmap
from pathlib import Path

import pytest

from gsmtp import mime


def test_buffers_of_all_kinds(tmp_path: Path) -> None:
    raw = mime.encode(mime.Message.build(from_="a@b.example", subject="é", text="x", attachments=[("a", b"\0" * 1000)]))
    path = tmp_path / "mail"
    path.write_bytes(raw)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for buffer in (raw, bytearray(raw), memoryview(raw), memoryview(b"x" + raw)[1:], mapped):
            message = mime.decode(buffer, strict=True)
            assert message.subject == "é" and message.text == "x\r\n" and message.raw == raw
            assert message.attachments[0].content == message.attachments[0].open().read() == b"\0" * 1000
            assert mime.encode(message) == raw
        del message


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "binary"])
@pytest.mark.parametrize("size", [0, 1, 300_000, 600_001])
def test_open_reads_in_pieces(encoding: str, size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    encoded = {
        "base64": lambda: b"\r\n".join(
            binascii.b2a_base64(content[n : n + 57], newline=False) for n in range(0, size, 57)
        ),
        "quoted-printable": lambda: binascii.b2a_qp(content, istext=False),
        "binary": lambda: content,
    }[encoding]()
    message = mime.decode(b"Content-Transfer-Encoding: " + encoding.encode() + b"\r\n\r\n" + encoded)
    assert message.content == content
    with message.open() as stream:
        assert b"".join(iter(lambda: stream.read(100_000), b"")) == content
