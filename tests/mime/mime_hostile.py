"""Hostile mail by name, and what it costs to read. Run as a program it measures each in a process of its own and
prints JSON: {name: {"ask": seconds, "defects": seconds, "strict": code or null, "megabytes": peak above the mail}}.

Seconds are processor time of the thread, the best of three if the first is not far below the bound, so that a busy
machine bends them little. Memory is what the kernel counted as resident at the most, since tracing allocations would
miss some and slow the rest.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mime_asking import ask_all

from gsmtp import mime

HEAD = b"From: a@b.example\r\nMIME-Version: 1.0\r\n"
MIXED = b"Content-Type: multipart/mixed; boundary="


def nested(depth: int) -> bytes:
    return HEAD + b"".join(MIXED + b"b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))


def attached_in_base64(depth: int) -> bytes:
    raw = b"From: a@b.example\r\n\r\nhello"
    for _ in range(depth):
        head = HEAD + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        raw = head + base64.encodebytes(raw)
    return raw


def header(name: bytes, value: bytes) -> bytes:
    return HEAD + name + b": " + value + b"\r\n\r\nbody"


def body(encoding: bytes, value: bytes) -> bytes:
    return HEAD + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + value


def typed(content_type: bytes, value: bytes) -> bytes:
    return HEAD + b"Content-Type: " + content_type + b"\r\n\r\n" + value


HOSTILE: dict[str, Callable[[], bytes]] = {
    "200,000 empty parts": lambda: HEAD + MIXED + b"x\r\n\r\n" + b"--x\r\n\r\n" * 200_000,
    "50,000 encoded words": lambda: header(b"Subject", b"=?utf-8?q?a?= " * 50_000),
    "50,000 folded words": lambda: header(b"Subject", b"=?utf-8?q?a?=\r\n " * 50_000),
    "50,000 addresses": lambda: header(b"To", b"a b <a@b.c>, " * 50_000),
    "200,000 commas": lambda: header(b"To", b"," * 200_000),
    "50,000 parameters": lambda: header(
        b"Content-Type", b"text/plain" + b"".join(b"; p%d=v" % n for n in range(50_000))
    ),
    "10,000 parameters continued backwards": lambda: header(
        b"Content-Type", b"text/plain" + b"".join(b"; p*%d=v" % n for n in range(9_999, -1, -1))
    ),
    "5,000 nested parts": lambda: nested(5_000),
    "20,000 nested rfc822": lambda: HEAD + b"Content-Type: message/rfc822\r\n\r\n" * 20_000,
    "20 nested rfc822 in base64": lambda: attached_in_base64(20),
    "an endless header": lambda: HEAD + b"X: " + b"a" * 8_000_000,
    "an endless head": lambda: HEAD + b"X: a\r\n" * 1_000_000,
    "a line without end": lambda: b"a" * 4_000_000,
    "boundaries that are prefixes": lambda: (
        HEAD
        + b"".join(MIXED + b"a" * n + b"\r\n\r\n--" + b"a" * n + b"\r\n" for n in range(1, 50))
        + b"--aaaaab\r\n" * 100_000
    ),
    "a boundary before white space": lambda: HEAD + MIXED + b"x\r\n\r\n" + (b"--x" + b" " * 100_000 + b"y\r\n") * 40,
    "lines of dashes": lambda: HEAD + MIXED + b"x\r\n\r\n--x\r\n\r\n" + b"\n--" * 1_000_000,
    "white space in a header": lambda: header(b"Subject", b" " * 4_000_000),
    "folds in a header": lambda: header(b"Subject", b"a" + b"\r\n " * 1_000_000),
    "white space in quoted-printable": lambda: body(b"quoted-printable", b" " * 2_000_000 + b"x"),
    "lines of white space in quoted-printable": lambda: body(b"quoted-printable", b" \r\n" * 200_000),
    "megabytes of commas": lambda: header(b"To", b"," * 4_000_000),
    "megabytes of =?": lambda: header(b"Subject", b"=?" * 2_000_000),
    "as many =? as a head may hold": lambda: header(b"Subject", b"=?" * 120_000),
    "encoded words without an end": lambda: header(b"Subject", b"=?a?q?" * 40_000),
    "comments that open": lambda: header(b"To", b"(" * 240_000),
    "comments in parameters that open": lambda: header(b"Content-Type", b"text/plain " + b"(" * 240_000),
    "quotes that open": lambda: header(b"To", b'"\\' * 120_000),
    "brackets that open": lambda: header(b"To", b"<" * 240_000),
    "literals that open": lambda: header(b"To", b"[a" * 120_000),
    "at signs": lambda: header(b"To", b"a@" * 120_000),
    "groups": lambda: header(b"To", b"a:;" * 80_000),
    "quotes in parameters": lambda: header(b"Content-Type", b"text/plain; a=" + b'"\\' * 120_000),
    "words in parameters": lambda: header(b"Content-Type", b"text/plain " + b"a " * 120_000),
    "a date of digits": lambda: header(b"Date", b"1 " * 120_000),
    "a file name of dots": lambda: header(b"Content-Disposition", b"attachment; filename=" + b"../" * 80_000),
    "references": lambda: header(b"References", b"<a" * 120_000),
    "padding": lambda: body(b"base64", b"=" * 2_000_000),
    "padding in runs": lambda: body(b"base64", b"AA==" * 500_000),
    "escapes that are none": lambda: body(b"quoted-printable", b"=" * 1_000_000),
    "escapes of CR": lambda: body(b"quoted-printable", b"=\r" * 500_000),
    "uuencoded lines of nothing": lambda: body(b"x-uuencode", b"begin 644 x\n" + b"M\n" * 500_000),
    "utf-7": lambda: HEAD + b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"+A" * 500_000,
    "iso-2022-jp": lambda: HEAD + b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n" + b"\x1b$B" * 300_000,
    # addresses
    "nested comments": lambda: header(b"To", b"(" * 120_000 + b")" * 120_000),
    "a comment for each address": lambda: header(b"To", b"(a, " * 60_000),
    "comments in parameters": lambda: header(b"Content-Type", b"text/plain; " + b"(a)" * 80_000),
    "nested angle brackets": lambda: header(b"To", b"<" * 120_000 + b"a@b.example" + b">" * 120_000),
    "angle brackets one after another": lambda: header(b"To", b"<a@b.c>" * 35_000),
    "routes that open": lambda: header(b"To", b"<@a," * 60_000),
    "a route without end": lambda: header(b"To", b"<" + b"@a," * 80_000 + b":b@c.example>"),
    "semicolons": lambda: header(b"To", b";" * 240_000),
    "colons": lambda: header(b"To", b":" * 240_000),
    "dots between spaces": lambda: header(b"To", b"a . " * 60_000 + b"@b.example"),
    "quoted pairs": lambda: header(b"To", b'"a\\"" ' * 34_000 + b"<a@b.example>"),
    # other headers
    "RFC 2231 sections": lambda: header(
        b"Content-Disposition", b"attachment" + b"".join(b"; filename*%d*=%%41" % n for n in range(10_000))
    ),
    "an RFC 2231 section with a long number": lambda: header(
        b"Content-Disposition", b"attachment; filename*" + b"0" * 200_000 + b"=a"
    ),
    "a file name of stars": lambda: header(b"Content-Disposition", b"attachment; filename" + b"*" * 200_000 + b"=a"),
    "a file name of spaces": lambda: header(b"Content-Disposition", b"attachment; filename=a" + b" " * 200_000 + b"b"),
    "a file name of comments": lambda: header(b"Content-Disposition", b"attachment; filename=a" + b" (" * 100_000),
    "quotes inside quotes": lambda: header(b"Content-Type", b'text/plain; a="b"c; ' * 12_000),
    "10,000 continuation lines": lambda: header(b"Subject", b"a" + b"\r\n a" * 10_000),
    "10,000 continuation lines of addresses": lambda: header(b"To", b"a@b.example" + b"\r\n ,a@b.example" * 10_000),
    "60,000 continuation lines of parameters": lambda: header(b"Content-Type", b"text/plain" + b"\r\n ;" * 60_000),
    "=? with spaces": lambda: header(b"Subject", b"=? " * 80_000),
    "=? with names without end": lambda: header(b"Subject", (b"=?" + b"a" * 74) * 3_200),
    "encoded words inside encoded words": lambda: header(b"Subject", b"=?a?q?x=?z " * 20_000 + b"?="),
    "encoded words of padding": lambda: header(b"Subject", b"=?utf-8?b?====?= " * 14_000),
    "encoded words in a file name": lambda: header(
        b"Content-Disposition", b"attachment; filename=" + b"=?utf-8?q?a?= " * 16_000
    ),
    "a charset of a megabyte": lambda: HEAD + b"Content-Type: text/plain; charset=" + b"x" * 1_000_000 + b"\r\n\r\n",
    "a charset as long as a head may be": lambda: header(b"Content-Type", b"text/plain; charset=" + b"-" * 200_000),
    "900 dates": lambda: HEAD + (b"Date: " + b"1 Jan " * 40 + b"\r\n") * 900 + b"\r\n",
    "a date of comments": lambda: header(b"Date", b"Mon, " + b"(" * 200_000),
    "a Message-ID of brackets": lambda: header(b"Message-ID", b"<" * 240_000),
    "40,000 references": lambda: header(b"References", b"<a@b> " * 40_000),
    "raw bytes in a header": lambda: header(b"X", b"\xff" * 250_000),
    "lines of colons": lambda: b":\n" * 1_000_000,
    "lines of From": lambda: b"From a\n" * 500_000,
    # structure
    "a million lines like a delimiter": lambda: HEAD + MIXED + b"x\r\n\r\n--x\r\n\r\n" + b"--xy\r\n" * 1_000_000,
    "lines like the delimiters of fifty": lambda: nested(49) + b"--b\n" * 500_000,
    "boundaries of 5,000 characters": lambda: (
        HEAD
        + b"".join(MIXED + b"a" * 5_000 + b"%d\r\n\r\n--" % n + b"a" * 5_000 + b"%d\r\n" % n for n in range(49))
        + (MIXED + b"a" * 5_000 + b"x\r\n\r\n--" + b"a" * 5_000 + b"x--\r\n--" + b"a" * 5_000 + b"48\r\n") * 200
    ),
    "a thousand parts with 900 headers": lambda: (
        HEAD + MIXED + b"x\r\n\r\n" + (b"--x\r\n" + b"A: b\r\n" * 900 + b"\r\n") * 999
    ),
    "a thousand parts with a hundred parameters": lambda: (
        HEAD + MIXED + b"x\r\n\r\n" + (b"--x\r\nContent-Type: text/plain" + b"; a=b" * 100 + b"\r\n\r\n") * 999
    ),
    "a thousand long file names": lambda: (
        HEAD
        + MIXED
        + b"x\r\n\r\n"
        + (b"--x\r\nContent-Disposition: attachment; filename=" + b"a" * 2_000 + b"\r\n\r\n") * 999
    ),
    "49 nested rfc822 in quoted-printable": lambda: (
        HEAD
        + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" * 49
        + b"x" * 4_000_000
    ),
    "300,000 recipients in a delivery report": lambda: typed(b"message/delivery-status", b"Action: x\n\n" * 300_000),
    "a delivery report of lines": lambda: typed(b"message/delivery-status", b"x\n" * 1_500_000),
    "a delivery report of blank lines": lambda: typed(b"message/delivery-status", b"\n" * 3_000_000),
    # bodies
    "base64 with junk between all": lambda: body(b"base64", b"A!" * 2_000_000),
    "base64 with padding between all": lambda: body(b"base64", b"A=" * 1_500_000),
    "base64 and white space behind": lambda: body(b"base64", (b"AA=" + b" " * 4_000) * 1_000),
    "soft line breaks": lambda: body(b"quoted-printable", b"=\r\n" * 1_500_000),
    "soft line breaks after white space": lambda: body(b"quoted-printable", b"= \t\r\n" * 400_000),
    "escapes of white space": lambda: body(b"quoted-printable", b"= " * 2_000_000),
    "uuencoded beginnings": lambda: body(b"x-uuencode", b"begin 644 x\n" * 300_000),
    "short uuencoded lines": lambda: body(b"x-uuencode", b"begin 644 x\n" + b"!!!!!\n" * 800_000),
    "bytes that windows-1257 lacks": lambda: typed(b"text/plain; charset=windows-1257", b"\xa1" * 4_000_000),
    "halves of characters in utf-16": lambda: typed(b"text/plain; charset=utf-16", b"\x00\xd8" * 2_000_000),
    "no utf-32": lambda: typed(b"text/plain; charset=utf-32", b"\xff" * 4_000_000),
    "no utf-7": lambda: typed(b"text/plain; charset=utf-7", b"\xff" * 2_000_000),
    "no gb18030": lambda: typed(b"text/plain; charset=gb18030", b"\xff" * 4_000_000),
}


def seconds(work: Callable[[], object], first: float) -> float:
    """The least of `first` and two more turns, if that was not far below the bound."""
    best = first
    for _ in range(2):
        if best < 0.25:
            break
        best = min(best, once(work))
    return best


def once(work: Callable[[], object]) -> float:
    begin = time.thread_time()
    work()
    return time.thread_time() - begin


def resident() -> float:
    """The most that was resident since `forget`, in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def strict(raw: bytes) -> str | None:
    try:
        mime.decode(raw, strict=True)
    except mime.MimeError as error:
        return error.code
    return None


def measure(name: str) -> dict[str, object]:
    raw = HOSTILE[name]()
    works: dict[str, Callable[[], object]] = {
        "ask": lambda: ask_all(mime.decode(raw)),
        "defects": lambda: mime.decode(raw).defects,
    }
    gc.collect()
    forget()
    before = resident()
    first = {question: once(work) for question, work in works.items()}
    megabytes = resident() - before
    found: dict[str, object] = {question: seconds(work, first[question]) for question, work in works.items()}
    return {**found, "strict": strict(raw), "megabytes": megabytes}


def measure_all() -> dict[str, object]:
    """Each in a fork, so that none finds memory that another one left."""
    results: dict[str, object] = {}
    for name in HOSTILE:
        read, write = os.pipe()
        if not (child := os.fork()):
            try:
                os.write(write, json.dumps(measure(name)).encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            results[name] = json.loads(pipe.read() or b"null")
        os.waitpid(child, 0)
    return results


if __name__ == "__main__":
    json.dump(measure_all(), sys.stdout, indent=1)
