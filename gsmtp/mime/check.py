"""Lists all defects of a mail, by decoding everything once more with a note-taker.

Reading does not stop to record defects. This pass runs the same parsers, so the defects listed are exactly those that
reading has forgiven.
"""

from __future__ import annotations

from gsmtp.mime import transfer
from gsmtp.mime.addresses import parse_addresses
from gsmtp.mime.charset import decode_text, guess
from gsmtp.mime.dates import parse_date
from gsmtp.mime.defects import Defect
from gsmtp.mime.headers import SINGLE
from gsmtp.mime.lexical import skip_blank, unfold
from gsmtp.mime.parameters import parse_parameters
from gsmtp.mime.part import TYPE, Part
from gsmtp.mime.words import decode_words

_ADDRESSES = frozenset(
    b"from sender reply-to to cc bcc resent-from resent-sender resent-to resent-cc resent-bcc".split()
)
_DATES = frozenset((b"date", b"resent-date"))
# Headers in which no encoded word stands
_OPAQUE = frozenset(b"received message-id in-reply-to references dkim-signature content-id mime-version".split())


class _Full(Exception):
    """The limit of listed defects is reached."""


class _Log:
    """Collects defects up to the limit. `at` is the offset that they get."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found: list[Defect] = []
        self.at = 0

    def __call__(self, code: str, text: str) -> None:
        self.add(Defect(code, text, self.at))

    def add(self, defect: Defect) -> None:
        """Add a defect. Raises _Full."""
        if len(self.found) >= self.limit:
            self.found.append(Defect("too_many_defects", f"more than {self.limit}", defect.offset))
            raise _Full
        self.found.append(defect)


def check(root: Part) -> list[Defect]:
    """Return the defects of `root` and all parts below it by offset. The time is linear in the size of the mail."""
    log = _Log(root._source.limits.defects)
    try:
        for number, part in enumerate(root.walk()):
            _check_head(part, log, number == 0)
            _check_body(part, log)
        for defect in root._source.defects:
            log.add(defect)
    except _Full:
        pass
    log.found.sort(key=lambda defect: defect.offset)
    return log.found


def _check_head(part: Part, log: _Log, top: bool) -> None:
    limits = part._source.limits
    for defect in part.headers.defects():
        log.add(defect if part._origin < 0 else defect._replace(offset=part._origin))
    seen: set[bytes] = set()
    version = False
    for name, raw, offset in part.headers.spans():
        log.at = offset if part._origin < 0 else part._origin
        text = unfold(guess(raw))
        if not raw.isascii():
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError:
                log("header_not_utf8", name.decode("ascii"))
        first = name not in seen
        if name in SINGLE:
            seen.add(name)
        if name in _ADDRESSES:
            parse_addresses(text, limits.addresses, limits.charsets, log)
        elif name in _DATES:
            if parse_date(text) is None:
                log("bad_date", f"not a date: {text!r:.60}")
        elif not first:
            continue
        elif name == b"content-type":
            value, _ = parse_parameters(text, limits, log)
            if not TYPE.fullmatch(value):
                log("bad_content_type", f"not a type: {value!r:.60}")
        elif name == b"content-disposition":
            value, _ = parse_parameters(text, limits, log)
            if not value or not value.replace("-", "").isalnum():
                log("bad_disposition", f"not a disposition: {value!r:.60}")
        elif name == b"content-transfer-encoding":
            if not transfer.encoding_of(text)[1]:
                log("unknown_encoding", f"{text!r:.60}")
        elif name == b"mime-version":
            version = True
            _check_version(text, log)
        elif name not in _OPAQUE and "=?" in text:
            decode_words(text, limits.charsets, limits.encoded_words, log)
    if top and not version and part.content_type.startswith("multipart/"):
        log.at = part._start
        log("non_mime_multipart", "no MIME-Version")


def _check_version(text: str, log: _Log) -> None:
    at, closed = skip_blank(text, 0)
    if not closed:
        log("unterminated_comment", "in MIME-Version")
    if not (text.startswith("1.0", at) and skip_blank(text, at + 3)[0] == len(text)):
        log("mime_version", f"MIME-Version {text!r:.40}")


def _check_body(part: Part, log: _Log) -> None:
    if part._payload is not None:
        return
    log.at = part._body if part._origin < 0 else part._origin
    encoding = part.encoding
    if part.content_type.startswith("multipart/"):
        if encoding:
            log("encoded_multipart", encoding)
        return
    if encoding and (found := transfer.problem(part.raw_body, encoding)):
        log(*found)
    if part.content_type.startswith("text/"):
        decode_text(part.content, part.charset, part._source.limits.charsets, log)
