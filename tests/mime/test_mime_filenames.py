"""Names of files that are safe to use."""

from __future__ import annotations

import pytest

from gsmtp.mime.filenames import safe_filename


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.exe", "y.exe"),
        ("..", "attachment"),
        ("", "attachment"),
        (".hidden", "hidden"),
        ("a\0b\nc", "a_b_c"),
        ("x\u202etxt.exe", "x_txt.exe"),
        ("CON.txt", "_CON.txt"),
        ("dir/", "dir"),
        ("é" * 300 + ".pdf", "é" * 125 + ".pdf"),
        ("a" * 300, "a" * 255),
    ],
)
def test_safe_filename(name: str, safe: str) -> None:
    assert safe_filename(name) == safe and len(safe.encode()) <= 255
