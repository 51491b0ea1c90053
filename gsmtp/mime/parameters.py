"""Values with parameters, as in Content-Type and Content-Disposition (RFC 2045 5.1, RFC 2183, RFC 2231).

They are read in one pass over the text, as senders write them: values without quotes though they need them, quotes
without an end, quotes inside quotes, comments, missing semicolons, file names as encoded words, pieces of RFC 2231 in
any order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from gsmtp.mime.charset import decode_text, guess
from gsmtp.mime.defects import DEFAULT_LIMITS, Limits, Note
from gsmtp.mime.lexical import QUOTED, skip_blank, skip_space, unescape, unfold
from gsmtp.mime.words import decode_words

# RFC 2045 5.1: parameter = attribute "=" value. Deviation: white space may stand around "=".
_VALUE = re.compile(r"[^;\s(\"=]*+")
_ATTRIBUTE = re.compile(r"([^\s;=\"()]++)[ \t\r\n]*+=[ \t\r\n]*+")
_JUNK = re.compile(r"[^;]*+")
_WORD = re.compile(r"[^;\s]*+")
_COMMENT_AT_END = re.compile(r"[ \t]\([^()]*\)\Z")
# RFC 2231 7: attribute [ "*" section ] [ "*" ]
_PIECE = re.compile(r"([^*]+)(?:\*([0-9]{1,9}))?(\*)?")
# RFC 2045 5.1: tspecials, which may stand in a value in quotes only
_NEEDS_QUOTES = re.compile(r"[()<>@,;:\\\"/\[\]?=\s]|\A\Z")
# File names are free text: senders leave spaces in them without quotes, and write encoded words.
_FREE_TEXT = frozenset(("name", "filename"))

Parsed = tuple[str, Mapping[str, str]]


def parse_parameters(text: str, limits: Limits = DEFAULT_LIMITS, note: Note | None = None) -> Parsed:
    """Return the value and the parameters of an unfolded field, value and names lower-case. Raises nothing.

    `'text/plain; charset="utf-8"'` gives `("text/plain", {"charset": "utf-8"})`. The mapping cannot be changed.
    """
    at, closed = skip_blank(text, 0)
    if not closed and note is not None:
        note("unterminated_comment", "a comment has no end")
    found = _VALUE.match(text, at)
    assert found is not None  # the expression matches the empty text
    value, at = found[0].lower(), found.end()
    if text.startswith("=", at):  # parameters without a value before
        value, at = "", found.start()
    pieces: dict[str, str] = {}
    quotable = True  # a quoted string without an end was not met yet
    count = 0
    parted = not value  # a semicolon stands before what comes
    length = len(text)
    while at < length:
        at, closed = skip_blank(text, at)
        if not closed and note is not None:
            note("unterminated_comment", "a comment has no end")
        if text.startswith(";", at):
            parted = True
            at += 1
            continue
        if at >= length:
            break
        found = _ATTRIBUTE.match(text, at)
        if found is None:
            found = _WORD.match(text, at)
            at = max(found.end() if found else at, at + 1)
            if note is not None:
                note("bad_parameter", "a parameter without a value")
            continue
        count += 1
        if count > limits.parameters:
            if note is not None:
                note("too_many_parameters", f"more than {limits.parameters}")
            break
        name, at = found[1].lower(), found.end()
        if note is not None and not parted:
            note("bad_parameter", f"no semicolon before {name:.40}")
        parted = False
        if text.startswith('"', at):
            quoted = QUOTED.match(text, at) if quotable else None
            if quoted is None:
                quotable = False
                if note is not None:
                    note("unterminated_quotes", f"the value of {name:.40}")
                found = _JUNK.match(text, at + 1)
                content, at = (found[0].strip(), found.end()) if found else ("", length)
            else:
                content, at = _after_quotes(text, at, quoted.end(), unescape(quoted[1]), note)
        elif name in _FREE_TEXT:
            found = _JUNK.match(text, at)
            content, at = (found[0].strip(), found.end()) if found else ("", length)
            content = _COMMENT_AT_END.sub("", content)
            if note is not None and _NEEDS_QUOTES.search(content):
                note("bad_parameter", f"the value of {name:.40} needs quotes")
        else:
            found = _WORD.match(text, at)
            content, at = (found[0], found.end()) if found else ("", length)
            if name == "charset":
                content = content.partition("(")[0]
            if note is not None and _NEEDS_QUOTES.search(content):
                note("bad_parameter", f"the value of {name:.40} needs quotes")
        if name in pieces:
            if note is not None:
                note("duplicate_parameter", f"{name:.40}")
        else:
            pieces[name] = content
    return value, MappingProxyType(_join(pieces, limits.charsets, note))


def parse_raw(raw: bytes, limits: Limits = DEFAULT_LIMITS) -> Parsed:
    """Do what `parse_parameters` does for the bytes of a field, with its folds."""
    if limits is DEFAULT_LIMITS and len(raw) < 200:
        return _cached_raw(raw)
    return parse_parameters(unfold(guess(raw)), limits)


@lru_cache(maxsize=1024)
def _cached_raw(raw: bytes) -> Parsed:
    return parse_parameters(unfold(guess(raw)))


def _after_quotes(text: str, start: int, end: int, content: str, note: Note | None) -> tuple[str, int]:
    """Return a quoted value that has something behind its quotes, and where it ends."""
    at = skip_space(text, end)
    if at >= len(text) or text[at] in ";(" or (at > end and _ATTRIBUTE.match(text, at)):
        return content, at
    if note is not None:
        note("bad_parameter", "text behind a quoted value")
    found = _JUNK.match(text, at)
    stop = found.end() if found else len(text)
    whole = text[start:stop].rstrip()
    if whole.endswith('"'):  # "my "best" file.pdf"
        return unescape(whole[1:-1]), stop
    return content, stop


def _join(pieces: dict[str, str], charsets: frozenset[str], note: Note | None) -> dict[str, str]:
    """Return the parameters with those of RFC 2231 put together.

    Those without "*" are kept, with the encoded words of file names decoded.
    """
    plain: dict[str, str] = {}
    extended: dict[str, list[tuple[int, str, bool]]] = {}
    for name, content in pieces.items():
        if "*" in name and (found := _PIECE.fullmatch(name)):
            section = -1 if found[2] is None else int(found[2])
            extended.setdefault(found[1], []).append((section, content, found[3] is not None))
        elif name in _FREE_TEXT and "=?" in content:
            plain[name] = decode_words(content, charsets, note=note)
        else:
            plain[name] = content
    for name, sections in extended.items():
        # "name*" without sections is what a sender means; sections count from 0, and a gap ends them.
        sections.sort()
        if sections[0][0] < 0:
            del sections[1:]
        charset, out = "", b""
        for expected, (section, content, percent) in enumerate(sections):
            if section not in (-1, expected) and expected:
                if note is not None:
                    note("bad_parameter", f"section {expected} of {name:.40} is missing")
                break
            if percent:
                if not expected:
                    head = content.split("'", 2)
                    if len(head) == 3:
                        charset, content = head[0], head[2]
                    elif note is not None:
                        note("bad_parameter", f"{name:.40}* without charset'language'")
                out += unquote_to_bytes(content)
            else:
                out += content.encode("utf-8")
        plain[name] = decode_text(out, charset or "utf-8", charsets, note)
    return plain


def no_parameters() -> Mapping[str, str]:
    """Return the mapping of a field without parameters."""
    return MappingProxyType({})
