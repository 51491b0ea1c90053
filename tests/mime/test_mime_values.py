"""Tables for what is public beside mails: addresses, dates, file names, identifiers, reports, buffers."""

from __future__ import annotations

import ast
import binascii
import mmap
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

import gsmtp
from gsmtp import mime
from gsmtp.mime import Address, Group
from gsmtp.mime.filenames import safe_filename

PACKAGE = Path(mime.__file__).parent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a@b.example", [Address("", "a@b.example")]),
        ("A B <a@b.example>", [Address("A B", "a@b.example")]),
        ('"B, A" <a@b.example>', [Address("B, A", "a@b.example")]),
        ("a@b.example (Ann (nested \\) one))", [Address("Ann (nested ) one)", "a@b.example")]),
        ("<a@b.example> (late)", [Address("late", "a@b.example")]),
        ("a . b @ c . example", [Address("", "a.b@c.example")]),
        ('"a b"@c.example', [Address("", '"a b"@c.example')]),
        ("a@[IPv6:::1]", [Address("", "a@[IPv6:::1]")]),
        ("G:;", [Group("G", ())]),
        (
            "G: a@b.example, C <c@d.example>;, e@f.example",
            [
                Group("G", (Address("", "a@b.example"), Address("C", "c@d.example"))),
                Address("", "e@f.example"),
            ],
        ),
        ("G: a@b.example", [Group("G", (Address("", "a@b.example"),))]),
        ("<<a@b.example>>", [Address("", "a@b.example")]),
        ("A <a@b.example> B <c@d.example>", [Address("A", "a@b.example"), Address("", "c@d.example")]),
        ('"unclosed <a@b.example>', [Address("unclosed", "a@b.example")]),
        ("ann at example", [Address("ann at example", "")]),
        ("Jörg <jörg@exämple.de>", [Address("Jörg", "jörg@exämple.de")]),
        (
            "=?utf-8?q?a=2C?= <a@b.example>,,\r\n b@c.example",
            [Address("a,", "a@b.example"), Address("", "b@c.example")],
        ),
        ("=?utf-8?q?=3Cx=40y=3E?= <a@b.example>", [Address("<x@y>", "a@b.example")]),
    ],
)
def test_parse_addresses(text: str, expected: list[Address | Group]) -> None:
    assert mime.parse_addresses(text) == expected


def test_addresses_are_written_so_that_they_parse_again() -> None:
    items = [
        Address("Doe, John", "j@example.com"),
        Address("", "a@example.com"),
        Address('q"\\', '"a b"@example.com'),
        Group("A.B", (Address("J. D.", "x@example.com"),)),
        Group("none", ()),
    ]
    alike = [Address("=?utf-8?q?x?= y", "a@example.com"), Group("=?a?b?c?=", ())]
    assert mime.parse_addresses(mime.format_addresses(alike)) == alike
    text = mime.format_addresses(items)
    assert mime.parse_addresses(text) == items
    assert text == (
        '"Doe, John" <j@example.com>, a@example.com, "q\\"\\\\" <"a b"@example.com>, '
        '"A.B": "J. D." <x@example.com>;, none: ;'
    )
    assert str(items[0]) == '"Doe, John" <j@example.com>' and str(items[4]) == "none: ;"
    assert (Address("", '"a@b"@c.example').local, Address("", "a@c.example").domain) == ('"a@b"', "c.example")


@pytest.mark.parametrize(
    ("addr", "valid"),
    [
        ("a@b", True),
        ('"a b"@c.example', True),
        ("a@[192.0.2.1]", True),
        ("ä@ö.example", True),
        ("a..b@c", False),
        (".a@c", False),
        ("a@b..c", False),
        ("a b@c", False),
        ("a@b@c", False),
        ("a", False),
        ("a@b\n", False),
    ],
)
def test_valid_address(addr: str, valid: bool) -> None:
    assert mime.valid_address(addr) is valid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mon, 02 Jan 2006 15:04:05 -0700", "2006-01-02T15:04:05-07:00"),
        ("2 Jan 2006 15:04 +0530", "2006-01-02T15:04:00+05:30"),
        ("Mon, 2 Jan 06 15:04:05 EST", "2006-01-02T15:04:05-05:00"),
        ("Mon, 2 Jan 99 15:04:05 GMT", "1999-01-02T15:04:05+00:00"),
        ("Mon, 2 Jan 2006 15:04:05 -0330 (Newfoundland)", "2006-01-02T15:04:05-03:30"),
        ("Mon, 2 Jan 2006 23:59:60 -0000", "2006-01-02T23:59:59+00:00"),
        ("Mon, 2 Jan 106 15:04:05 GMT", "2006-01-02T15:04:05+00:00"),
        ("Mon, 2 Jan 0006 15:04:05 GMT", "2006-01-02T15:04:05+00:00"),
        ("Mon,\t 2 January 2006  15.04.05 Z", "2006-01-02T15:04:05+00:00"),
        ("Mon Jan  2 15:04:05 2006", "2006-01-02T15:04:05+00:00"),
        ("2006-01-02T15:04:05+01:00", "2006-01-02T15:04:05+01:00"),
        ("Mon, 2 Jan 2006 15:04:05 +9999", "2006-01-02T15:04:05+00:00"),
        ("Mon, 32 Jan 2006 15:04:05 +0000", None),
        ("Mon, 2 Foo 2006 15:04:05 +0000", None),
        ("tomorrow", None),
        ("", None),
    ],
)
def test_parse_date(text: str, expected: str | None) -> None:
    found = mime.parse_date(text)
    assert (found and found.isoformat()) == expected


@pytest.mark.parametrize("minutes", [0, 330, -330, -210, 345, 765, -30, 30])
def test_zones_of_half_and_quarter_hours(minutes: int) -> None:
    when = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(minutes=minutes)))
    text = mime.format_date(when)
    assert text.startswith("Tue, 02 Jan 2024 03:04:05 ") and mime.parse_date(text) == when
    sign = "-" if minutes < 0 else "+"
    assert text.endswith(f"{sign}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}")


def test_format_date_of_naive_and_ancient_times() -> None:
    assert mime.format_date(datetime(2024, 1, 2, 3, 4, 5)).endswith(" -0000")
    with pytest.raises(ValueError):
        mime.format_date(datetime(1899, 1, 1, tzinfo=UTC))


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


def test_identifiers_are_unique() -> None:
    assert len({mime.make_message_id("x.example") for _ in range(100)}) == 100
    assert len({mime.make_boundary() for _ in range(100)}) == 100
    assert mime.make_message_id("x.example").endswith("@x.example>")
    assert mime.decode(f"Message-ID: {mime.make_message_id()}\r\n\r\n".encode(), strict=True).message_id


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


DSN = b"""\
From: mailer@example.com
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b

It failed.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com
Arrival-Date: Mon, 1 Jan 2024 12:00:00 +0000
Original-Envelope-Id: QQ314159

Original-Recipient: rfc822;ann@example.org
Final-Recipient: rfc822; ann@example.org
Action: Failed
Status: 5.1.1 (no such user)
Remote-MTA: dns; mx.example.org
Diagnostic-Code: smtp; 550 5.1.1
 no such user

Final-Recipient: rfc822; bob@example.org
Action: delayed
Status: 4.4.1
Will-Retry-Until: Tue, 2 Jan 2024 12:00:00 +0000
--b
Content-Type: text/rfc822-headers

Subject: the original
Message-ID: <1@example.com>
--b--
"""


def test_delivery_report() -> None:
    found = mime.report(mime.decode(DSN))
    assert isinstance(found, mime.DeliveryReport)
    assert (found.reporting_mta, found.envelope_id) == ("mx.example.com", "QQ314159")
    assert found.arrival == datetime(2024, 1, 1, 12, tzinfo=UTC)
    ann, bob = found.recipients
    assert (ann.final_recipient, ann.original_recipient) == ("ann@example.org", "ann@example.org")
    assert (ann.action, ann.status, ann.permanent, ann.remote_mta) == (
        "failed",
        "5.1.1",
        True,
        "mx.example.org",
    )
    assert ann.diagnostic == "550 5.1.1 no such user"
    assert (bob.action, bob.status, bob.permanent) == ("delayed", "4.4.1", False)
    assert bob.retry_until == datetime(2024, 1, 2, 12, tzinfo=UTC)
    assert found.original is not None and found.original.subject == "the original"


def test_delivery_report_without_blank_lines() -> None:
    found = mime.report(
        mime.decode(DSN.replace(b"QQ314159\n\n", b"QQ314159\n").replace(b"user\n\nFinal", b"user\nFinal"))
    )
    assert isinstance(found, mime.DeliveryReport)
    assert [item.final_recipient for item in found.recipients] == ["ann@example.org", "bob@example.org"]


def test_disposition_report() -> None:
    found = mime.report(
        mime.decode(
            b"Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n--b\r\n"
            b"Content-Type: message/disposition-notification\r\n\r\nReporting-UA: joe; Mailer 1\r\n"
            b"Final-Recipient: rfc822;joe@example.com\r\nOriginal-Message-ID: <1@example.com>\r\n"
            b"Disposition: manual-action/MDN-sent-manually; Displayed/error, warning\r\n--b--\r\n"
        )
    )
    assert isinstance(found, mime.DispositionReport)
    assert (found.final_recipient, found.original_message_id) == ("joe@example.com", "<1@example.com>")
    assert (found.mode, found.type, found.modifiers) == (
        "manual-action/mdn-sent-manually",
        "displayed",
        ("error", "warning"),
    )


def test_a_mail_that_is_no_report() -> None:
    assert mime.report(mime.decode(b"Subject: x\r\n\r\n")) is None


def test_the_package_stands_alone() -> None:
    """It imports nothing else of gsmtp, no gevent, and what it imports at run time it has."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("gsmtp") or name.startswith("gsmtp.mime"), f"{path.name} imports {name}"
                assert not name.startswith("gevent"), f"{path.name} imports {name}"


def test_importing_it_imports_no_gevent() -> None:
    """Nor what the server stands on: it can be used in any program."""
    code = "import sys, gsmtp.mime; print(*sys.modules)"
    root = str(Path(gsmtp.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, timeout=60, capture_output=True, text=True
    )
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    assert "gsmtp" in tops and not tops & {"gevent", "greenlet", "ssl", "asyncio", "psutil", "dns", "gsmtp_workers"}


def test_a_large_attachment_is_built_and_decoded_in_little_memory() -> None:
    content = bytes(5_000_000)
    tracemalloc.start()
    try:
        raw = mime.encode(mime.Message.build(from_="a@b.example", text="x", attachments=[("a", content)]))
        assert tracemalloc.get_traced_memory()[1] < 3 * len(content)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert mime.decode(raw).attachments[0].content == content
        assert tracemalloc.get_traced_memory()[1] - before < 2 * len(raw)
    finally:
        tracemalloc.stop()


def test_the_base64_of_the_standard_library_is_enough() -> None:
    """Without pybase64 and cryptography the same bytes come out."""
    code = (
        "import sys; sys.modules['pybase64'] = None; sys.modules['cryptography'] = None\n"
        "from gsmtp import mime\n"
        "message = mime.Message.build(from_='a@b.example', text='x', attachments=[('a', bytes(1000))])\n"
        "raw = mime.encode(message)\n"
        "assert mime.decode(raw, strict=True).attachments[0].content == bytes(1000)\n"
        "try: mime.DKIM('s', 'd.example', b'')\n"
        "except ImportError as error: assert 'gsmtp[dkim]' in str(error)\n"
    )
    root = str(Path(gsmtp.__file__).parent.parent)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)
