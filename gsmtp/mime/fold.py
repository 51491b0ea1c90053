"""Folds field values: at 78 octets where a line can break, and never above 998 (RFC 5322 2.1.1).

A value is a list of tokens, each with the white space before it. A line may break before a token, and the white space
then opens the next line, so that unfolding gives the value back. Encoded words (RFC 2047) are made here: each has at
most 75 characters, is split between code points, and is whole in itself.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable

WIDTH = 78
LONGEST = 998
# A token above this is encoded even where it could stand, since no line can hold it with its name.
LONGEST_TOKEN = 900

_SPLIT = re.compile(r"([ \t]*)([^ \t]+)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# RFC 2047 5 (3): what may stand for itself in an encoded word in a phrase, the strictest place
_Q_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_WORD = 75
_OVERHEAD = len("=?utf-8?q??=")

Token = tuple[str, str]  # white space before, text


def needs_encoding(word: str, utf8: bool) -> bool:
    """Return whether a word (without white space) must become an encoded word to arrive unchanged."""
    return (
        "=?" in word or len(word) > LONGEST_TOKEN or not (utf8 or word.isascii()) or _CONTROL.search(word) is not None
    )


def _q(data: bytes) -> str:
    return "".join("_" if byte == 32 else chr(byte) if byte in _Q_SAFE else f"={byte:02X}" for byte in data)


def encode_words(text: str, room: int = _WORD) -> list[str]:
    """Return `text` as encoded words in UTF-8, the first at most `room` characters long, the others 75.

    The encoding is Q or B, whichever is shorter.
    """
    data = text.encode("utf-8")
    special = len(data) - sum(1 for byte in data if byte in _Q_SAFE or byte == 32)
    use_q = special * 3 + len(data) - special <= (len(data) + 2) // 3 * 4
    out: list[str] = []
    piece: list[bytes] = []
    size = 0  # of the encoded piece: characters for Q, octets for B
    most = min(room, _WORD) - _OVERHEAD
    if most < 16:
        most = _WORD - _OVERHEAD
    limit = most if use_q else most // 4 * 3
    for char in text:
        octets = char.encode("utf-8")
        cost = (1 if octets[0] in _Q_SAFE or octets == b" " else 3 * len(octets)) if use_q else len(octets)
        if size + cost > limit and piece:
            out.append(_word(b"".join(piece), use_q))
            piece, size = [], 0
            limit = _WORD - _OVERHEAD if use_q else (_WORD - _OVERHEAD) // 4 * 3
        piece.append(octets)
        size += cost
    if piece:
        out.append(_word(b"".join(piece), use_q))
    return out


def _word(data: bytes, use_q: bool) -> str:
    if use_q:
        return f"=?utf-8?q?{_q(data)}?="
    return f"=?utf-8?b?{binascii.b2a_base64(data, newline=False).decode('ascii')}?="


def text_tokens(text: str, utf8: bool, room: int = _WORD) -> list[Token]:
    """Return free text (RFC 5322 2.2.1) as tokens, in which words that need it are encoded, neighbours together.

    `room` is the number of characters left on the first line.
    """
    tokens: list[Token] = []
    pending = ""  # words to be encoded, with the white space between them
    before = ""
    for found in _SPLIT.finditer(text):
        space, word = found.groups()
        if needs_encoding(word, utf8) or len(space) > 60:
            if pending:
                pending += space + word
            elif len(space) > 60:  # a line of white space would be no continuation: it goes into the word
                before, pending = space[:1], space[1:] + word
            else:
                before, pending = space, word
            continue
        if pending:
            tokens += _encoded_tokens(before, pending, room if not tokens else _WORD)
            pending = ""
        tokens.append((space, word))
    if pending:
        tokens += _encoded_tokens(before, pending, room if not tokens else _WORD)
    return tokens


def _encoded_tokens(before: str, text: str, room: int) -> list[Token]:
    words = encode_words(text, room)
    return [(before if number == 0 else " ", word) for number, word in enumerate(words)]


def fold(name: str, tokens: Iterable[Token], hold_first: bool = False) -> bytes:
    """Return the value of header field `name` as bytes, folded, without the name and the last CRLF.

    With `hold_first` the first token stays on the line of the name whatever its length. Raises ValueError when a line
    would be longer than 998 octets.
    """
    lines: list[str] = []
    line = ""
    used = len(name) + 2
    first = True
    for space, text in tokens:
        size = len(text.encode("utf-8"))
        if first:
            breaks = not hold_first and used + size > WIDTH and size < WIDTH
            space = " " if breaks else ""
        else:
            breaks = bool(space) and used + len(space) + size > WIDTH
        if breaks:
            lines.append(line)
            line, used = space + text, len(space) + size
        else:
            line += space + text
            used += len(space) + size
        first = False
        if used > LONGEST:
            raise ValueError(f"a line of {name} would be longer than {LONGEST} octets")
    lines.append(line)
    return "\r\n".join(lines).encode("utf-8")
