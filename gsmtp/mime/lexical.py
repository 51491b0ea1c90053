"""The tokens that structured header fields share (RFC 5322 3.2): white space, comments, quoted strings.

Everything is linear in the length of the text. Every quantifier is possessive, and a caller that meets a quoted string
or a comment without an end must remember that, since the next one can have none either.
"""

from __future__ import annotations

import re

# RFC 5322 3.2.4: quoted-string = DQUOTE *([FWS] qcontent) [FWS] DQUOTE; quoted-pair = "\" (VCHAR / WSP)
QUOTED = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.S)
_PAIR = re.compile(r"\\(.)", re.S)
# RFC 5322 2.2.3: unfolding removes the line end that stands before white space
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_COMMENT_STEP = re.compile(r"[^()\\]*+(?:\\.|([()])|\\\Z)", re.S)
_SPACE = re.compile(r"[ \t\r\n]*+")


def unfold(text: str) -> str:
    """Return a field's value on one line, without the white space around it."""
    if "\n" in text:
        text = _FOLD.sub("", text)
    return text.strip(" \t\r\n")


def unescape(text: str) -> str:
    """Return the content of a quoted string or a comment with its quoted pairs resolved."""
    return _PAIR.sub(r"\1", text) if "\\" in text else text


def comment_end(text: str, at: int) -> int:
    """Return the offset behind the comment that opens at `at` (comments nest, RFC 5322 3.2.2), or -1 without an end."""
    depth = 0
    step = _COMMENT_STEP.match
    while found := step(text, at):
        at = found.end()
        if found[1] == "(":
            depth += 1
        elif found[1] == ")":
            depth -= 1
            if not depth:
                return at
    return -1


def skip_space(text: str, at: int) -> int:
    """Return the offset of the first character from `at` on that is not white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def skip_blank(text: str, at: int) -> tuple[int, bool]:
    """Return the offset behind white space and comments, and whether the last comment had no end.

    Without an end all is skipped.
    """
    while True:
        at = skip_space(text, at)
        if not text.startswith("(", at):
            return at, True
        end = comment_end(text, at)
        if end < 0:
            return len(text), False
        at = end
