"""What `encode` writes: headers folded and encoded rightly, transfer encodings that fit, nothing forged."""

from __future__ import annotations

import email
import email.message
import email.policy
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gsmtp import mime

WHEN = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def build(**arguments: object) -> mime.Message:
    given: dict[str, object] = {
        "from_": "ann@example.com",
        "date": WHEN,
        "message_id": "<1@example.com>",
        **arguments,
    }
    return mime.Message.build(**given)  # type: ignore[arg-type]


def head(raw: bytes) -> bytes:
    return raw.partition(b"\r\n\r\n")[0] + b"\r\n"


def header(raw: bytes, name: str) -> str:
    found = re.search(rf"(?mi)^{name}: (.*(?:\r\n[ \t].*)*)\r\n", head(raw).decode())
    assert found is not None, f"{name} is missing"
    return found[1]


def test_the_whole_of_a_small_mail() -> None:
    message = build(to="bob@example.org", subject="Hello", text="Hi Bob\n")
    assert mime.encode(message) == (
        b"From: ann@example.com\r\nTo: bob@example.org\r\nSubject: Hello\r\n"
        b"Date: Tue, 02 Jan 2024 03:04:05 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\n\r\nHi Bob\r\n"
    )


def test_date_and_message_id_are_made() -> None:
    message = mime.Message.build(from_="ann@bücher.example", text="x")
    assert message.date is not None and abs((message.date - datetime.now(UTC)).total_seconds()) < 60
    assert re.fullmatch(r"<[0-9a-f.]+@xn--bcher-kva\.example>", message.message_id or "")
    assert message.message_id != mime.Message.build(from_="ann@example.com").message_id


def test_missing_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="From"):
        mime.Message.build(from_="", text="x")
    with pytest.raises(ValueError, match="From"):
        mime.encode(email.message_from_string("Subject: x\n\nbody"))


def test_references_come_from_in_reply_to() -> None:
    assert build(headers={"In-Reply-To": "<a@x>"}).references == ["<a@x>"]
    both = build(headers={"In-Reply-To": "<b@x>", "References": "<a@x>"})
    assert both.references == ["<a@x>", "<b@x>"]
    assert build(headers={"In-Reply-To": "<a@x>", "References": "<a@x> <b@x>"}).references == [
        "<a@x>",
        "<b@x>",
    ]


def test_bcc_is_dropped_but_counts_as_recipient() -> None:
    message = build(to="b@example.org", cc="c@example.org, b@example.org", bcc="d@example.org", text="x")
    assert message.recipients == ["b@example.org", "c@example.org", "d@example.org"]
    assert b"d@example.org" not in mime.encode(message)


def test_address_lists_fold_at_commas() -> None:
    people = [mime.Address(f"Person Number {n}", f"person{n}@example.org") for n in range(100)]
    raw = mime.encode(build(to=people))
    lines = header(raw, "To").split("\r\n")
    assert all(line.endswith(",") for line in lines[:-1]) and len(lines) < 100
    assert all(len(line) <= 78 for line in head(raw).decode().split("\r\n"))
    assert mime.decode(raw).to == people


def test_quoted_names_stay_quoted_when_folded() -> None:
    name = "Doe, John " + "of a very long name indeed, " * 5 + "(Jr.)"
    raw = mime.encode(build(to=mime.Address(name, "john@example.org")))
    assert all(len(line) <= 78 for line in head(raw).decode().split("\r\n"))
    assert header(raw, "To").startswith('"') and mime.decode(raw).to == [mime.Address(name, "john@example.org")]


@pytest.mark.parametrize(
    "name", ["a.b", "a@b", 'a "b" \\c', " a ", "a  b", "=?utf-8?q?x?=", "tab\there", "(x)", "日本", "é" * 80]
)
def test_any_name_comes_back(name: str) -> None:
    for utf8 in (None, False, True):
        raw = mime.encode(build(to=mime.Address(name, "a@example.org")), utf8=utf8)
        assert mime.decode(raw, strict=True).to == [mime.Address(name.strip(" "), "a@example.org")]
        assert utf8 is True or raw.isascii()


def test_addresses_are_never_encoded_words() -> None:
    long = "l" * 60 + "@" + ".".join(["d" * 50] * 4) + ".example"
    raw = mime.encode(build(to=[mime.Address("Jörg", long)], headers={"X-Token": "t" * 300}))
    assert f"<{long}>" in raw.decode() and "t" * 300 in raw.decode()


def test_domains_become_a_labels() -> None:
    raw = mime.encode(build(to="jörg@bücher.example".replace("ö", "o")))
    assert header(raw, "To") == "jorg@xn--bcher-kva.example"
    assert mime.to_ascii("straße.日本") == "xn--strae-oqa.xn--wgv71a"
    for bad in ("ü" * 64 + ".example", "a/ü.example"):
        with pytest.raises(ValueError):
            mime.to_ascii(bad)


def test_a_local_part_may_need_smtputf8() -> None:
    message = build(to="Jörg <jörg@example.org>", subject="Grüße")
    assert message.needs_smtputf8 and not build(to="Jörg <joerg@example.org>").needs_smtputf8
    with pytest.raises(mime.NeedsSMTPUTF8):
        mime.encode(message, utf8=False)
    assert "<jörg@example.org>".encode() in mime.encode(message)
    assert "Subject: Grüße\r\n".encode() in mime.encode(message, utf8=True)
    assert b"Subject: =?utf-8?" in mime.encode(message)


@pytest.mark.parametrize("bad", ["a\r\nBcc: x@y", "a\nb", "a\rb", "a\0b"])
def test_no_header_can_be_forged(bad: str) -> None:
    message = build(text="x")
    for arguments in (
        {"subject": bad},
        {"to": mime.Address(bad, "a@example.org")},
        {"to": mime.Address("a", f"{bad}@example.org")},
        {"to": f"{bad} <a@example.org>"},
        {"headers": {"X-Y": bad}},
        {"headers": {bad: "y"}},
        {"attachments": [(bad, b"x")]},
    ):
        with pytest.raises(ValueError):
            build(**arguments)
    with pytest.raises(ValueError):
        message.headers["X"] = bad
    with pytest.raises(ValueError):
        message.headers.add("X", bad)
    for format in (mime.format_address, lambda address: mime.format_addresses([mime.Group("g", (address,))])):
        with pytest.raises(ValueError):
            format(mime.Address(bad, "a@example.org"))


@pytest.mark.parametrize("bad", ["a@b>, <c@d", "a b@example.org", "", "@example.org", "a@", "a@b@c", "x" * 330 + "@y"])
def test_what_is_no_address_is_an_error(bad: str) -> None:
    with pytest.raises(ValueError):
        build(to=mime.Address("x", bad))


def test_a_line_that_cannot_be_is_an_error_or_encoded() -> None:
    raw = mime.encode(build(subject="s" * 3000 + " " * 200 + "t", headers={"X-Y": " ".join(["w" * 500] * 5)}))
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert mime.decode(raw).subject == "s" * 3000 + " " * 200 + "t"
    with pytest.raises(ValueError):
        build(headers={"References": "<" + "x" * 1000 + "@y>"})


def test_encoded_words_split_at_characters() -> None:
    text = "Grüße 日本語 " * 20
    raw = mime.encode(build(subject=text))
    for word in re.findall(r"=\?[^ \r]+\?=", header(raw, "Subject")):
        assert len(word) <= 75
        assert mime.decode(b"Subject: " + word.encode() + b"\r\n\r\n", strict=True).subject.strip() in text
    assert mime.decode(raw).subject == text.strip()


@pytest.mark.parametrize(
    ("content", "cte", "encoding"),
    [
        ("ascii\n", "7bit", ""),
        ("Grüße " + "a" * 60 + "\n", "7bit", "quoted-printable"),
        ("日本語\n", "7bit", "base64"),
        ("Grüße\n", "8bit", "8bit"),
        ("a" * 2000, "7bit", "quoted-printable"),
        ("a" * 2000, "8bit", "quoted-printable"),
        ("nul\0", "8bit", "quoted-printable"),
        ("ü" * 2000, "binary", "binary"),
        ("trailing \n", "7bit", ""),
    ],
)
def test_the_transfer_encoding_fits(content: str, cte: str, encoding: str) -> None:
    raw = mime.encode(build(text=content), cte=cte)  # type: ignore[arg-type]
    message = mime.decode(raw)
    assert (message.headers["Content-Transfer-Encoding"] or "") == encoding
    assert message.text == re.sub("\r?\n", "\r\n", content.rstrip("\n") + "\n")


def test_bytes_of_attachments_are_kept_and_text_ends_lines_with_crlf() -> None:
    files = [
        ("a.txt", b"one\ntwo\rthree"),
        ("b.txt", "one\ntwo"),
        ("c.bin", bytes(range(256)) * 10),
        ("d.txt", b""),
    ]
    decoded = mime.decode(mime.encode(build(text="x", attachments=files)), strict=True)
    assert [(part.filename, part.content) for part in decoded.attachments] == [
        ("a.txt", b"one\ntwo\rthree"), ("b.txt", b"one\r\ntwo\r\n"), files[2], files[3],
    ]  # fmt: skip
    assert [part.content_type for part in decoded.attachments][:3] == [
        "text/plain",
        "text/plain",
        "application/octet-stream",
    ]


def test_attachments_of_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / 'näme;"x".csv'
    path.write_bytes(b"a,b\r\n")
    inner = build(subject="inner", text="y")
    message = build(
        text="plain", html="<img src='cid:logo'>", inline={"logo": ("logo.png", b"\x89PNG")},
        attachments=[path, inner, mime.Attachment(b"{}", "x", "application/json", "id", params={"v": "1"})],
    )  # fmt: skip
    raw = mime.encode(message)
    decoded = mime.decode(raw, strict=True)
    assert [part.content_type for part in decoded.walk()] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html",
        "image/png", "text/csv", "message/rfc822", "text/plain", "application/json",
    ]  # fmt: skip
    logo, csv, attached, json = decoded.attachments
    assert (logo.content_id, logo.disposition) == ("<logo>", "inline")
    assert csv.filename == path.name and attached.message is not None and attached.message.subject == "inner"
    assert (json.content_id, json.params["v"], json.filename) == ("<id>", "1", "x")
    assert (decoded.text, decoded.html) == ("plain\r\n", "<img src='cid:logo'>\r\n")
    stdlib = email.message_from_bytes(raw, policy=email.policy.default)
    assert [part.get_filename() for part in stdlib.walk()][6] == path.name


def test_long_file_names_are_continued() -> None:
    name = "ein sehr langer Dateiname mit Umlauten äöü " * 5 + ".pdf"
    raw = mime.encode(build(attachments=[(name, b"x")]))
    assert all(len(line) <= 78 for line in raw.decode().split("\r\n"))
    assert mime.decode(raw, strict=True).attachments[0].filename == name
    stdlib = email.message_from_bytes(raw, policy=email.policy.default)
    assert next(stdlib.iter_attachments()).get_filename() == name


def test_an_attached_mail_has_no_transfer_encoding_and_is_made_to_fit() -> None:
    inner = mime.decode(
        b"From: J\xc3\xb6rg <j@example.com>\r\nSubject: x\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
    )
    raw = mime.encode(build(text="see", attachments=[inner]))
    assert raw.isascii()
    decoded = mime.decode(raw, strict=True)
    part = decoded.attachments[0]
    assert "Content-Transfer-Encoding" not in part.headers and part.message is not None
    assert part.message.text == "Grüße\r\n" and part.message.from_ == mime.Address("Jörg", "j@example.com")
    eight = mime.decode(mime.encode(build(text="see", attachments=[inner]), cte="8bit", utf8=True))
    assert eight.attachments[0].headers["Content-Transfer-Encoding"] == "8bit"
    assert eight.attachments[0].message is not None and eight.attachments[0].message.raw == inner.raw


def test_what_holds_8_bit_or_binary_parts_says_so() -> None:
    inner = build(text="Grüße\n")
    for cte, label in (("7bit", None), ("8bit", "8bit"), ("binary", "binary")):
        message = mime.decode(mime.encode(build(text="x", html="ä", attachments=[inner]), cte=cte))  # type: ignore[arg-type]
        composites = [part for part in message.walk() if part.parts or part.message is not None]
        assert len(composites) == 3 and {part.headers["Content-Transfer-Encoding"] for part in composites} == {label}
    plain = mime.decode(mime.encode(build(text="x", html="y"), cte="8bit"))
    assert plain.headers["Content-Transfer-Encoding"] is None
    binary = mime.decode(b"From: a@b.example\r\n\r\n" + b"\xff" * 2_000)
    raw = mime.encode(build(text="x", attachments=[binary]), cte="binary", utf8=True)
    assert mime.decode(raw).attachments[0].headers["Content-Transfer-Encoding"] == "binary"


def test_an_attached_mail_that_needs_utf8_becomes_message_global() -> None:
    inner = mime.decode("From: jörg@example.com\r\n\r\nx\r\n".encode())
    decoded = mime.decode(mime.encode(build(text="see", attachments=[inner])), strict=True)
    part = decoded.attachments[0]
    assert part.content_type == "message/global" and part.message is not None and part.message.raw == inner.raw


def test_changed_headers_leave_every_other_byte() -> None:
    raw = (
        b"From: a@example.com\nX-Odd :  kept  \nSubject: old\nSubject: older\nBcc: s@example.com\n"
        b"Content-Type: multipart/mixed; boundary=b\n\npre\n--b\nX: y\n\none\n--b--\nepi"
    )
    message = mime.decode(raw)
    message.headers["Subject"] = "neu: Grüße"
    message.parts[0].headers["X"] = "z"
    message.headers.add("X-New", "1")
    assert mime.encode(message) == (
        b"From: a@example.com\nX-Odd :  kept  \nSubject: neu: =?utf-8?b?R3LDvMOfZQ==?=\n"
        b"Content-Type: multipart/mixed; boundary=b\nX-New: 1\n\npre\n--b\nX: z\n\none\n--b--\nepi"
    )
    del message.headers["X-New"]
    assert "X-New" not in message.headers and message.headers["SUBJECT"] == "neu: Grüße"


def test_a_mail_without_a_blank_line_gets_one_with_a_header() -> None:
    message = mime.decode(b"Subject: x")
    message.headers["X"] = "y"
    assert mime.encode(message) == b"Subject: x\r\nX: y\r\n\r\n"


def test_what_stands_before_the_head_stays() -> None:
    message = mime.decode(b"\xef\xbb\xbfFrom a@b.example Mon Jan  1 00:00:00 2024\nSubject: x\n\nbody")
    message.headers["Subject"] = "y"
    assert mime.encode(message) == b"\xef\xbb\xbfFrom a@b.example Mon Jan  1 00:00:00 2024\nSubject: y\n\nbody"


def test_raw_utf8_in_parts_and_lists_can_be_had_in_ascii() -> None:
    raw = (
        "To: =?utf-8?q?Doe=2C_John?= <j@example.com>, Jörg <k@example.com>\r\n"
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        'Content-Disposition: attachment; filename="ä.txt"\r\n\r\nä\r\n--b--\r\n'
    ).encode()
    message = mime.decode(mime.encode(mime.decode(raw), utf8=False))
    assert not message.needs_smtputf8 and message.attachments[0].filename == "ä.txt"
    assert message.to == [mime.Address("Doe, John", "j@example.com"), mime.Address("Jörg", "k@example.com")]


def test_headers_inside_an_encoded_mail_cannot_be_changed() -> None:
    raw = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeA0KDQo=\r\n"
    message = mime.decode(raw)
    assert message.message is not None
    message.message.headers["Subject"] = "y"
    with pytest.raises(ValueError):
        mime.encode(message)


def test_raw_utf8_headers_can_be_had_in_ascii() -> None:
    message = mime.decode("Subject: Grüße\r\nTo: Jörg <j@example.com>\r\nX: y\r\n\r\nbody".encode())
    assert mime.encode(message).decode().startswith("Subject: Grüße")
    raw = mime.encode(message, utf8=False)
    assert raw.isascii() and raw.endswith(b"\r\nX: y\r\n\r\nbody") and mime.decode(raw).subject == "Grüße"


@pytest.mark.parametrize("policy", [email.policy.default, email.policy.compat32, email.policy.SMTP])
def test_the_standard_librarys_messages(policy: email.policy.Policy) -> None:
    source = mime.encode(
        build(
            to=[mime.Address("Jörg, der Erste", "j@example.org")],
            subject="Grüße",
            text="Hällo\n",
            attachments=[("ü.bin", b"\0")],
        )
    )
    message = email.message_from_bytes(source, policy=policy)
    raw = mime.encode(message)
    decoded = mime.decode(raw, strict=True)
    assert raw.isascii() and decoded.subject == "Grüße" and decoded.text == "Hällo\r\n"
    assert decoded.to == [mime.Address("Jörg, der Erste", "j@example.org")]
    assert [(part.filename, part.content) for part in decoded.attachments] == [("ü.bin", b"\0")]


def test_an_email_message_made_by_hand() -> None:
    message = email.message.EmailMessage()
    message["From"] = "Jörg <j@example.com>"
    message["To"] = "ann@example.org"
    message["Bcc"] = "secret@example.org"
    message.set_content("Grüße\n")
    message.add_alternative("<p>Grüße</p>\n", subtype="html")
    raw = mime.encode(message)
    decoded = mime.decode(raw, strict=True)
    assert decoded.text == "Grüße\r\n" and decoded.html == "<p>Grüße</p>\r\n" and b"secret" not in raw
    assert decoded.date is not None and decoded.message_id


def test_a_built_message_answers_as_a_decoded_one() -> None:
    message = build(subject="Grüße", text="t", html="<p>", attachments=[("a.bin", b"x")])
    assert (message.subject, message.text, message.html) == ("Grüße", "t\r\n", "<p>\r\n")
    assert [part.filename for part in message.attachments] == ["a.bin"] and message.defects == []
    assert message.raw == mime.encode(message) and message.raw_headers + message.raw_body == message.raw
    assert message.attachments[0].open().read() == b"x"


def test_to_email_message() -> None:
    raw = mime.encode(build(subject="Grüße", text="t"))
    assert mime.decode(raw).to_email_message()["subject"] == "Grüße"
    assert isinstance(mime.decode(raw).to_email_message(email.policy.compat32), email.message.Message)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError):
        mime.encode(build(), cte="9bit")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        build(headers={"Content-Type": "text/html"})
    with pytest.raises(ValueError):
        build(inline={"a": ("a.png", b"")})
    with pytest.raises(ValueError):
        build(attachments=[mime.Attachment(b"", "a", "multipart/mixed")])
    with pytest.raises(TypeError):
        mime.decode("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        build(headers={"Subject": 1})
