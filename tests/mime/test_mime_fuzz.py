"""A hundred thousand mutated mails: reading never raises, strict reading raises nothing but MimeError.

The mutations work on the fixtures, on built mails and on dictionaries of what parsers trip over, from a fixed
seed; GSMTP_FUZZ_SEED chooses another one, GSMTP_FUZZ_COUNT another number. A failing input is printed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from mime_asking import ask_all

from gsmtp import mime

COUNT = int(os.environ.get("GSMTP_FUZZ_COUNT", "100000"))
SEED = int(os.environ.get("GSMTP_FUZZ_SEED", "1"))

TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"--", b"--b", b"--b--", b"\r\n--b\r\n", b"\r\n--b--\r\n",
    b"\r\n\r\n", b":", b";", b",", b"<", b">", b"@", b"(", b")", b'"', b"\\", b"[", b"]", b"=", b"==",
    b"=\r\n", b"=?", b"?=", b"=?utf-8?q?", b"=?utf-8?b?", b"*0*=", b"*1=", b"*=", b"utf-8''", b"%",
    b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\x80", b"From ", b"Content-Type: ",
    b"multipart/mixed; boundary=b", b"multipart/digest; boundary=", b"message/rfc822",
    b"text/html; charset=", b"charset=utf-16", b"charset=hz", b"charset=iso-2022-kr", b"charset=utf-7",
    b"charset=zlib", b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n", b"Content-Transfer-Encoding: uuencode\r\n",
    b"begin 644 x\r\n", b"Content-Disposition: attachment; filename", b"message/delivery-status",
    b"Final-Recipient: ", b"Date: ", b"To: ", b"MIME-Version: 1.0",
]  # fmt: skip


def mutate(rng: random.Random, seeds: list[bytes]) -> bytes:
    raw = rng.choice(seeds)
    for _ in range(rng.randint(1, 6)):
        at, stop = sorted((rng.randint(0, len(raw)), rng.randint(0, len(raw))))
        stop = min(stop, at + rng.choice((0, 1, 4, 40)))
        what = rng.random()
        if what < 0.6:
            new = rng.choice(TOKENS) * rng.choice((1, 1, 1, 3))
        elif what < 0.75:
            new = rng.randbytes(rng.randint(0, 4))
        elif what < 0.9:
            other = rng.choice(seeds)
            start = rng.randint(0, len(other))
            new = other[start : start + rng.randint(0, 80)]
        else:
            new = raw[at:stop] * 3
        raw = raw[:at] + new + raw[stop:]
    return raw


def test_mutated_mails_never_break_the_decoder() -> None:
    rng = random.Random(SEED)
    seeds = [path.read_bytes() for path in sorted((Path(__file__).parent / "fixtures").glob("*.eml"))]
    seeds.append(
        mime.encode(
            mime.Message.build(from_="ä@b.example", subject="é" * 50, text="t", html="h", attachments=[("ü", b"\0")])
        )
    )
    strict = 0
    for number in range(COUNT):
        raw = mutate(rng, seeds)
        try:
            message = mime.decode(raw)
            ask_all(message)
            defects = message.defects
            assert all(defect.code in mime.CODES for defect in defects)
            assert all(0 <= defect.offset <= len(raw) for defect in defects)
            assert message.raw_headers + message.raw_body == raw
            if number % 10 == 0:
                check_strict(raw, defects)
                strict += 1
            if number % 50 == 0:
                check_again(message)
        except Exception:
            print(f"seed {SEED}, number {number}: {raw!r}")
            raise
    assert strict >= COUNT // 10


def check_strict(raw: bytes, defects: list[mime.Defect]) -> None:
    try:
        mime.decode(raw, strict=True)
        assert not defects
    except mime.MimeError as error:
        assert error.code == defects[0].code


def check_again(message: mime.Message) -> None:
    """What came can be attached to what is built, and is then fit for SMTP."""
    built = mime.Message.build(from_="a@b.example", text="x", attachments=[message])
    raw = mime.encode(built)
    assert raw.isascii() and b"\0" not in raw and max(map(len, raw.split(b"\r\n"))) <= 998
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
