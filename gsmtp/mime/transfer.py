"""Decodes transfer encodings of bodies (RFC 2045 6): base64, quoted-printable and uuencode.

Bad input gives the best bytes there are, and no decoder raises an error. A body that keeps to its encoding is decoded
by C code in one call; the slow way is taken only for what is broken. `pybase64`, if it is installed, decodes base64
faster still.
"""

from __future__ import annotations

import binascii
import io
import re
from collections.abc import Callable, Iterator

_fast_base64: Callable[[bytes], bytes]
try:
    from pybase64 import b64decode as _fast_base64
except ImportError:
    from binascii import a2b_base64 as _fast_base64

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_ALPHABET = bytes(sorted(set(range(256)) - set(_ALPHABET)))
_NOT_DIGIT = _NOT_ALPHABET.replace(b"=", b"")
_EXPECTED = _ALPHABET + b"=\r\n"
_FOREIGN = re.compile(rb"[^A-Za-z0-9+/=\s]")
_PADDING = re.compile(rb"=[=\s]*+")
# RFC 2045 6.7: "=" and two digits, or a soft line break: "=", white space added on the way, and the line's
# end
_BAD_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*+(?:\r?\n|\r?\Z))")
_TRAILING_SPACE = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n)")
_LINE = re.compile(rb"[^\n]*+\n?")
_MOST_RUNS = 1_000
_CHUNK = 192 * 1024

ENCODINGS = {
    "7bit": "",
    "8bit": "",
    "binary": "",
    "": "",
    "base64": "base64",
    "quoted-printable": "quoted-printable",
    "uuencode": "uuencode",
    "x-uuencode": "uuencode",
    "uue": "uuencode",
    "x-uue": "uuencode",
}
# The common spellings, as they stand
KNOWN = {name.encode("ascii"): encoding for name, encoding in ENCODINGS.items()}
_NEAR = {
    "7-bit": "",
    "8-bit": "",
    "7bits": "",
    "8bits": "",
    "base-64": "base64",
    "quotedprintable": "quoted-printable",
}


def encoding_of(value: str) -> tuple[str, bool]:
    """Return the encoding that a Content-Transfer-Encoding names ("" for none), and whether it is a known one."""
    name = value.strip().lower()
    known = ENCODINGS.get(name)
    if known is not None:
        return known, True
    # What real senders write: a comment, a parameter, quotes, "8bits".
    name = re.split(r"[\s;(]", name.strip("\"'; \t"), maxsplit=1)[0].strip("\"'")
    near = ENCODINGS.get(name, _NEAR.get(name))
    return ("", False) if near is None else (near, False)


def decode(data: bytes, encoding: str) -> bytes:
    """Return the decoded bytes of a body in "base64", "quoted-printable", "uuencode" or "" (unchanged)."""
    if encoding == "base64":
        return decode_base64(data)
    if encoding == "quoted-printable":
        return decode_quoted_printable(data)
    if encoding == "uuencode":
        return decode_uuencode(data)
    return data


def problem(data: bytes, encoding: str) -> tuple[str, str] | None:
    """Return the defect (code, text) of a body in that encoding, or None."""
    if encoding == "base64":
        if _base64_is_clean(data):
            return None
        return "bad_base64", "characters that are not base64, or incomplete base64"
    if encoding == "quoted-printable":
        if found := _BAD_ESCAPE.search(data):
            return (
                "bad_quoted_printable",
                f"{found.group() + data[found.end() : found.end() + 2]!r} is no escape",
            )
        return None
    if encoding == "uuencode" and b"begin " not in data:
        return "bad_uuencode", "no line begins the data"
    return None


def _base64_is_clean(data: bytes) -> bool:
    if _FOREIGN.search(data):
        return False
    found = _PADDING.search(data)
    end = found.start() if found else len(data)
    digits = len(data[:end].translate(None, b" \t\r\n\v\f"))
    if found is None:
        return digits % 4 == 0
    return found.end() == len(data) and digits % 4 > 1 and digits % 4 + data.count(b"=") == 4


def _is_no_base64(data: bytes) -> bool:
    """Return whether this is something else that is called base64: no padding, and every twentieth byte foreign."""
    return b"=" not in data and len(data.translate(None, _EXPECTED)) * 20 > len(data) > 64


def decode_base64(data: bytes) -> bytes:
    """Decode base64 (RFC 2045 6.8). Foreign characters are skipped, missing padding is added.

    A single last digit is dropped. Text that was called base64 is returned unchanged. What follows the padding is
    decoded too if it is base64 (files sent as several runs), and else dropped (the footer of a mailing list).
    """
    stop = data.rfind(b"=")
    if stop < 0 or data.find(b"=") >= stop - 1:  # padding, if any, stands once
        tail = len(data) - stop - 1 if stop >= 0 else 0
        if tail < 8 and not data[len(data) - tail :].strip():
            try:
                whole = _fast_base64(data)
            except binascii.Error:
                pass
            else:
                # About as many bytes as that many digits give: nothing foreign was among them.
                size = len(data) - data.count(b"\n") - data.count(b"\r")
                if len(whole) * 4 >= size * 3 - size // 10 - 12 or not _is_no_base64(data):
                    return whole
    if _is_no_base64(data):
        return data
    out: list[bytes] = []
    at = 0
    while at < len(data):
        found = _PADDING.search(data, at) if len(out) < _MOST_RUNS else None
        end, after = (found.start(), found.end()) if found else (len(data), len(data))
        if at and _FOREIGN.search(data, at, end):
            break
        digits = data[at:end].translate(None, _NOT_ALPHABET)
        if len(digits) % 4 == 1:
            digits = digits[:-1]
        out.append(binascii.a2b_base64(digits + b"=" * (-len(digits) % 4)))
        at = after
    return b"".join(out)


def _space_at_end(data: bytes) -> bool:
    return b" \n" in data or b" \r\n" in data or b"\t\n" in data or b"\t\r\n" in data


def decode_quoted_printable(data: bytes) -> bytes:
    """Decode quoted-printable (RFC 2045 6.7). "=" that is no escape is kept.

    White space at the end of a line is deleted, as rule 3 says.
    """
    data = data.rstrip(b" \t")
    if _space_at_end(data):
        for space in (b" ", b"\t", b" ", b"\t"):  # nearly always one or two, for which this is quickest
            data = data.replace(space + b"\r\n", b"\r\n").replace(space + b"\n", b"\n")
    if _space_at_end(data):
        # By pieces that end with lines: a substitution keeps everything it finds until it is done.
        out = bytearray()
        at = 0
        while at < len(data):
            stop = data.find(b"\n", at + _CHUNK) + 1 or len(data)
            out += _TRAILING_SPACE.sub(b"", data[at:stop])
            at = stop
        data = bytes(out)
    if data.count(b"=\r") != data.count(b"=\r\n"):
        # A lone CR is data; binascii would take it for a line end and skip to the next LF.
        data = data.replace(b"=\r\n", b"=\n").replace(b"=\r", b"=3D\r")
    return binascii.a2b_qp(data)


def decode_uuencode(data: bytes) -> bytes:
    """Return the data between "begin" and "end"; without a "begin" line, that of all lines that can be read."""
    start = 0 if data.startswith(b"begin ") else data.find(b"\nbegin ") + 1
    at = data.find(b"\n", start) + 1 if data.startswith(b"begin ", start) else 0
    out, bad = bytearray(), 0  # lines that say nothing, or little: only the last one of a file is short
    while at < len(data) and bad < _MOST_RUNS and (found := _LINE.match(data, at)):
        at = found.end()
        line = found[0].rstrip(b"\r\n")
        if line == b"end":
            break
        # The first character says how many bytes are meant. Some encoders miscount, and lines get cut off.
        length = min((line[0] - 32) & 63, (len(line) - 1) * 3 // 4) if line else 0
        bad += length < 20
        if not length:
            continue
        try:
            out += binascii.a2b_uu(bytes((length + 32,)) + line[1 : (length * 4 + 2) // 3 + 1])
        except binascii.Error:
            bad += 1
    return bytes(out)


def chunks(buffer: bytes, start: int, end: int, encoding: str) -> Iterator[bytes]:
    """Yield the decoded bytes of a body piece by piece; joined they are what `decode` returns for the whole."""
    if not encoding:
        for at in range(start, end, _CHUNK):
            yield buffer[at : min(at + _CHUNK, end)]
    elif encoding == "base64" and end - 8 <= buffer.find(b"=", start, end):
        yield from _base64_chunks(buffer, start, end)
    elif encoding == "quoted-printable":
        at = start
        while at < end:
            stop = buffer.find(b"\n", min(at + _CHUNK, end), end) + 1 or end
            yield decode_quoted_printable(buffer[at:stop])
            at = stop
    else:
        yield decode(buffer[start:end], encoding)


def _base64_chunks(buffer: bytes, start: int, end: int) -> Iterator[bytes]:
    rest = b""
    for at in range(start, end, _CHUNK):
        digits = rest + buffer[at : min(at + _CHUNK, end)].translate(None, _NOT_DIGIT)
        whole = len(digits) // 4 * 4 if at + _CHUNK < end else len(digits)
        rest = digits[whole:]
        yield decode_base64(digits[:whole])


class DecodingReader(io.RawIOBase):
    """A readable binary file over an iterator of chunks."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        size = min(len(target), len(self._left))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
