#!/usr/bin/env python3
"""Read a folder of mail with gsmtp.mime and with the standard library, and list where they differ.

`scripts/compare_mime.py FOLDER` reads every file in it and below, whatever its name; a file of several mails (mbox) is
split. For each mail it asks both for the header fields that people read, addresses, date, the parts with their types,
names and bytes, and the bodies. A difference is counted under the first of `KINDS` that explains it; docs/mime.rst says
for each which side is better. What none explains is listed under "not explained", with both answers. Files that are no
mail are read as mail all the same.

The exit status is 1 when gsmtp.mime raised, was slower than --seconds for a mail, did not write a mail unchanged, or
differs without an explanation; else 0. `--list` prints every difference, `--json FILE` writes them.
"""

from __future__ import annotations

import argparse
import email
import email.policy
import json
import mailbox
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from gsmtp import mime

QUESTIONS = ("subject", "from", "to", "cc", "date", "types", "names", "bytes", "text", "html")
_SHOWN = 300  # characters of an answer


@dataclass
class Difference:
    """A difference on one mail: the question, both answers, and the kind that explains it."""

    mail: str
    question: str
    theirs: str
    ours: str
    kind: str


def mails(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every mail below a folder (or the one file), with a name for it. Raises OSError."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        raw = path.read_bytes()
        name = str(path.relative_to(folder)) if folder.is_dir() else path.name
        box = list(_mbox(path)) if raw.startswith(b"From ") else []
        if len(box) < 2:
            yield name, raw
        else:
            yield from ((f"{name}#{number}", each) for number, each in enumerate(box, 1))


def _mbox(path: Path) -> Iterator[bytes]:
    box = mailbox.mbox(path, create=False)
    try:
        for key in box.iterkeys():
            yield box.get_bytes(key)
    finally:
        box.close()


# What is asked. Each side answers in plain values, so that they can be compared and shown.


def ours(raw: bytes) -> dict[str, Any]:
    """Return the answers of gsmtp.mime."""
    message = mime.decode(raw)
    leaves = [part for part in message.walk() if not part.parts and part.message is None]
    answers: dict[str, Any] = {
        "subject": message.subject,
        "from": _plain(message.addresses("From")),
        "to": _plain(message.to),
        "cc": _plain(message.cc),
        "date": message.date.isoformat() if message.date else None,
        "types": [part.content_type for part in leaves],
        "names": [part.filename for part in leaves],
        "bytes": [part.content for part in leaves],
        "text": message.text,
        "html": message.html,
    }
    return answers


def _plain(items: Sequence[mime.Address | mime.Group]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for item in items:
        found += [(each.name, each.addr) for each in (item.members if isinstance(item, mime.Group) else (item,))]
    return found


def theirs(raw: bytes) -> dict[str, Any]:
    """Return the answers of the standard library under `policy.default`; an exception is an answer, too."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    leaves = [part for part in message.walk() if not part.is_multipart()]

    def addresses(name: str) -> list[tuple[str, str]]:
        header = message[name]
        return [(each.display_name, each.addr_spec) for each in header.addresses] if header is not None else []

    def date() -> str | None:
        header = message["date"]
        return header.datetime.isoformat() if header is not None and header.datetime else None

    def body(kind: str) -> str | None:
        found = message.get_body((kind,))
        if found is None:
            return None
        payload = found.get_payload(decode=True)
        assert isinstance(payload, bytes)
        return payload.decode(found.get_content_charset("ascii"), "replace")

    questions: dict[str, Callable[[], Any]] = {
        "subject": lambda: str(message["subject"] or ""),
        "from": lambda: addresses("from"),
        "to": lambda: addresses("to"),
        "cc": lambda: addresses("cc"),
        "date": date,
        "types": lambda: [part.get_content_type() for part in leaves],
        "names": lambda: [part.get_filename() for part in leaves],
        "bytes": lambda: [part.get_payload(decode=True) for part in leaves],
        "text": lambda: body("plain"),
        "html": lambda: body("html"),
    }
    answers = {}
    for question, ask in questions.items():
        try:
            answers[question] = ask()
        except Exception as error:
            answers[question] = error
    return answers


@dataclass
class Case:
    """One difference with all that may explain it: both answers, the mail, and the defects that gsmtp.mime lists."""

    question: str
    there: dict[str, Any]
    here: dict[str, Any]
    raw: bytes
    codes: set[str]

    @property
    def theirs(self) -> Any:
        return self.there[self.question]

    @property
    def ours(self) -> Any:
        return self.here[self.question]

    def asks(self, *questions: str) -> bool:
        return self.question in questions


_LOST = re.compile("[\ufffd\udc80-\udcff]")
_CONTROLS = {code: bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0)}
_SPACE_AT_END = re.compile(r"[ \t]+(?=\r?\n|\Z)")
_SPACE_BEFORE_COLON = re.compile(rb"^[!-9;-~]+[ \t]+:", re.M)
_LONE_CR = re.compile(rb"\r(?!\n)")


def _encoded_mail(raw: bytes) -> bool:
    return any(part.message is not None and part.encoding for part in mime.decode(raw).walk())


def _no_space(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_no_space(each) for each in answer]
    text = answer.decode("latin-1") if isinstance(answer, bytes) else answer
    return _SPACE_AT_END.sub("", text) if isinstance(text, str) else text


def _only_names_differ(case: Case) -> bool:
    return isinstance(case.theirs, list) and [addr for _, addr in case.theirs] == [addr for _, addr in case.ours]


def _leaf_of_message(case: Case) -> bool:
    return any(each.startswith("message/") for each in case.here["types"])


PARTS = ("types", "names", "bytes", "text", "html")
ADDRESSES = ("from", "to", "cc")

# In this order: the first that fits is taken. The names are those in docs/mime.rst.
KINDS: list[tuple[str, Callable[[Case], bool]]] = [
    ("a byte order mark before the head", lambda case: case.raw.startswith(b"\xef\xbb\xbf")),
    ("the standard library raised", lambda case: isinstance(case.theirs, Exception)),
    (
        "raw 8-bit headers",
        lambda case: case.asks("subject", "names", *ADDRESSES) and bool(_LOST.search("".join(_texts(case.theirs)))),
    ),
    (
        "bytes 80 to 9f named iso-8859-1",
        lambda case: (
            case.asks("text", "html")
            and isinstance(case.theirs, str)
            and isinstance(case.ours, str)
            and case.theirs.translate(_CONTROLS) == case.ours
        ),
    ),
    (
        "bytes that do not fit the charset named, or none is",
        lambda case: case.asks("text", "html") and isinstance(case.theirs, str) and bool(_LOST.search(case.theirs)),
    ),
    (
        "empty parts",
        lambda case: (
            case.asks(*PARTS) and b"" in case.here["bytes"] and len(case.here["types"]) > len(case.there["types"])
        ),
    ),
    ("parts of message types", lambda case: case.asks(*PARTS) and _leaf_of_message(case)),
    (
        "a multipart without boundary or delimiter",
        lambda case: case.asks(*PARTS) and bool(case.codes & {"no_boundary", "missing_boundary"}),
    ),
    ("white space at the end of a line", lambda case: _no_space(case.theirs) == _no_space(case.ours)),
    (
        "quoted-printable that is broken",
        lambda case: case.asks("bytes", "text", "html") and "bad_quoted_printable" in case.codes,
    ),
    (
        "a transfer encoding that is misspelt",
        lambda case: case.asks("bytes", "text", "html") and "unknown_encoding" in case.codes,
    ),
    ("an attached mail in a transfer encoding", lambda case: case.asks(*PARTS) and _encoded_mail(case.raw)),
    ("encoded words that break the grammar", lambda case: case.asks("subject") and "bad_encoded_word" in case.codes),
    ("base64 that is broken", lambda case: case.asks("bytes", "text", "html") and "bad_base64" in case.codes),
    (
        "a From line of mbox before the head of a part",
        lambda case: case.asks(*PARTS) and b"\n>From " in case.raw and "header_without_colon" not in case.codes,
    ),
    ("the zone of a date", lambda case: case.asks("date") and str(case.theirs)[:19] == str(case.ours)[:19]),
    (
        "names of people with dots, comments or spaces",
        lambda case: case.asks(*ADDRESSES) and _only_names_differ(case),
    ),
    ("addresses that break the grammar", lambda case: case.asks(*ADDRESSES) and "bad_address" in case.codes),
    (
        "file names in encoded words, or with spaces and no quotes",
        lambda case: case.asks("names") and len(case.theirs) == len(case.ours),
    ),
    (
        "a Content-Type that breaks the grammar",
        lambda case: case.asks(*PARTS) and bool(case.codes & {"bad_content_type", "bad_parameter"}),
    ),
    ("a comment in Content-Type", lambda case: case.asks(*PARTS) and any("(" in each for each in case.there["types"])),
    ("a CR without LF", lambda case: bool(_LONE_CR.search(case.raw))),
    (
        "white space before a header or its colon",
        lambda case: "indented_header" in case.codes or bool(_SPACE_BEFORE_COLON.search(case.raw)),
    ),
    ("a line without a colon in the head", lambda case: "header_without_colon" in case.codes),
]


def _texts(answer: Any) -> Iterator[str]:
    if isinstance(answer, str):
        yield answer
    elif isinstance(answer, list | tuple):
        for each in answer:
            yield from _texts(each)


def kind_of(case: Case) -> str:
    """Return the name of the first kind that explains a difference."""
    return next((name for name, explains in KINDS if explains(case)), "not explained")


def compare(name: str, raw: bytes) -> list[Difference]:
    """Return the differences in one mail."""
    here, there = ours(raw), theirs(raw)
    codes = {defect.code for defect in mime.decode(raw).defects}
    return [
        Difference(
            name,
            question,
            repr(there[question])[:_SHOWN],
            repr(here[question])[:_SHOWN],
            kind_of(Case(question, there, here, raw, codes)),
        )
        for question in QUESTIONS
        if here[question] != there[question]
    ]


def faults(raw: bytes, seconds: float) -> Iterator[str]:
    """Return what must never happen: an exception, a mail that is slow, one that is not written unchanged."""
    try:
        spent = 9.0
        for _ in range(3):
            begin = time.process_time()
            ours(raw)
            message = mime.decode(raw)
            found = message.defects
            spent = min(spent, time.process_time() - begin)
            if spent < seconds:
                break
        else:
            yield f"took {spent:.2f} s"
        if mime.encode(message) != raw:
            yield "is not written as it came"
        try:
            mime.decode(raw, strict=True)
            if found:
                yield f"{found[0].code} is not raised by strict decoding"
        except mime.MimeError as error:
            if not found or error.code != found[0].code:
                yield f"strict decoding raised {error.code}, which is not the first defect"
    except Exception as error:
        yield f"raised {error!r}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="gsmtp.mime beside the standard library, mail by mail")
    parser.add_argument("folder", type=Path, help="of mail, in files of any name; or one file")
    parser.add_argument("--seconds", type=float, default=0.3, help="of processor time that a mail may take")
    parser.add_argument("--list", action="store_true", help="print every difference")
    parser.add_argument("--json", type=Path, help="write every difference there")
    options = parser.parse_args(arguments)
    if not options.folder.exists():
        parser.error(f"there is no {options.folder}")
    count = same = broken = 0
    found: list[Difference] = []
    for name, raw in mails(options.folder):
        count += 1
        for fault in faults(raw, options.seconds):
            broken += 1
            print(f"FAULT {name}: {fault}")
        differences = compare(name, raw)
        same += not differences
        found += differences
    kinds = Counter(each.kind for each in found)
    print(f"{count} mails: {same} the same, {count - same} with {len(found)} differences, {broken} faults")
    for kind, number in kinds.most_common():
        print(f"{number:6} in {len({each.mail for each in found if each.kind == kind}):4} mails  {kind}")
    for each in found:
        if options.list or each.kind == "not explained":
            print(f"{each.mail}: {each.question}: {each.kind}\n    theirs {each.theirs}\n    ours   {each.ours}")
    if options.json:
        document = {"mails": count, "same": same, "faults": broken, "differences": [asdict(each) for each in found]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if broken or kinds["not explained"] else 0


if __name__ == "__main__":
    sys.exit(main())
