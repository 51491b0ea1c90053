"""Decodes encoded words (RFC 2047), also with spaces inside, inside quotes, or split inside a character.

Neighbours in one charset are joined as bytes before they are decoded, so a character that is split over two words is
restored. It is one pass: the end of a word that was found is kept until the search has passed it.
"""

from __future__ import annotations

import binascii
import re

from gsmtp.mime import transfer
from gsmtp.mime.charset import CHARSETS, codec_for, decode_text
from gsmtp.mime.defects import Note

# RFC 2047 2: encoded-word = "=?" charset "?" encoding "?" encoded-text "?="; RFC 2231 5: charset ["*"
# language]
_START = re.compile(r"=\?([^?\s]{1,75})\?([bBqQ])\?")


def decode_words(
    text: str,
    charsets: frozenset[str] = CHARSETS,
    limit: int = 1_000,
    note: Note | None = None,
) -> str:
    """Return `text` (unfolded) with its encoded words decoded. Raises nothing.

    White space between two encoded words is dropped. What is no encoded word is kept, and so are words beyond `limit`.
    """
    at = text.find("=?")
    if at < 0:
        return text
    out: list[str] = []
    pending: list[bytes] = []  # the bytes of neighbouring words in one charset
    charset = ""
    done = 0  # what is before stands in `out` or `pending`
    end = -1
    count = 0
    search = _START.search
    while found := search(text, at):
        start, begin = found.span()
        if end < begin:
            end = text.find("?=", begin)
            if end < 0:
                if note is not None:
                    note("bad_encoded_word", "an encoded word has no end")
                break
        if text.find("=?", begin, end) >= 0 and search(text, begin, end + 2):
            at = begin  # the end belongs to a later word
            continue
        count += 1
        if count > limit:
            if note is not None:
                note("too_many_encoded_words", f"more than {limit}")
            break
        name = found[1].partition("*")[0].lower()
        if pending:
            between = text[done:start].strip(" \t\r\n")
            if between or name != charset:
                out.append(decode_text(b"".join(pending), charset, charsets, note))
                pending = []
            if between:
                out.append(text[done:start])
        else:
            out.append(text[done:start])
        charset = name
        encoded = _octets(text[begin:end], name)
        if found[2] in "bB":
            if note is not None and transfer.problem(encoded, "base64"):
                note("bad_encoded_word", f"not base64: {encoded[:40]!r}")
            pending.append(transfer.decode_base64(encoded))
        else:
            if note is not None and transfer.problem(encoded, "quoted-printable"):
                note("bad_encoded_word", f"not quoted-printable: {encoded[:40]!r}")
            pending.append(binascii.a2b_qp(encoded, header=True))
        at = done = end + 2
    if pending:
        out.append(decode_text(b"".join(pending), charset, charsets, note))
    out.append(text[done:])
    return "".join(out)


def _octets(text: str, charset: str) -> bytes:
    """Return the bytes of an encoded text. Raw characters above 127 become bytes of its charset."""
    if not text.isascii():
        for codec in (codec_for(charset), "cp1252"):
            try:
                return text.encode(codec or "utf-8")
            except UnicodeError:
                continue
    return text.encode("utf-8")
