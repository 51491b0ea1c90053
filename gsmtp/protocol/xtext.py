"""The codec xtext (RFC 3461 4), and the forms of UTF-8 addresses made like it (RFC 6533 3).

    xtext   = *( xchar / hexchar )
    xchar   = any character from "!" to "~" but "+" and "="
    hexchar = "+" 2( DIGIT / "A" to "F" )

DSN and AUTH= are strict. XCLIENT and XFORWARD follow Postfix, which also takes "=" as it is and hexadecimal digits in
small letters: that is `lenient`. Encoding is always strict. What the octets mean is the caller's: ASCII or UTF-8.
"""

from __future__ import annotations

import re

_STRICT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_LENIENT = re.compile(r"(?:[\x21-\x2a\x2c-\x7e]|\+[0-9A-Fa-f]{2})*")
_HEXCHAR = re.compile(r"\+([0-9A-Fa-f]{2})")
_NOT_XCHAR = re.compile(rb"[^\x21-\x2a\x2c-\x3c\x3e-\x7e]")
# utf-8-addr-xtext   = 1*(QCHAR / EmbeddedUnicodeChar)                                                     RFC 6533 3
# utf-8-addr-unitext = 1*(QUCHAR / EmbeddedUnicodeChar); QUCHAR = QCHAR / UTF8-2 / UTF8-3 / UTF8-4
# QCHAR = %x21-2a / %x2c-3c / %x3e-5b / %x5d-7e; EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}"
_UNITEXT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e\u0080-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})+")
_HEXPOINT = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_NOT_QCHAR = re.compile(r"[^\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e]")


def decode_xtext(text: str, *, utf8: bool = False, lenient: bool = False) -> str:
    """Return the text that `text` is the xtext of.

    The octets are ASCII, or UTF-8 with `utf8`. Raises ValueError when `text` is not xtext or not of that character set.
    """
    if not (_LENIENT if lenient else _STRICT).fullmatch(text):
        raise ValueError("not xtext")
    if "+" not in text:
        return text
    octets = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text).encode("latin-1")
    try:
        return octets.decode("utf-8" if utf8 else "ascii")
    except UnicodeDecodeError:
        raise ValueError("not xtext") from None


def encode_xtext(text: str) -> str:
    """Return the xtext of the UTF-8 octets of `text`. Raises UnicodeEncodeError for a lone surrogate."""
    return _NOT_XCHAR.sub(lambda match: b"+%02X" % match[0][0], text.encode()).decode("ascii")


def decode_utf8_addr(text: str) -> str:
    """Return the address that `text`, utf-8-addr-xtext or utf-8-addr-unitext, stands for. Raises ValueError."""
    if not _UNITEXT.fullmatch(text):
        raise ValueError("not utf-8-addr-xtext")
    points = [int(found, 16) for found in _HEXPOINT.findall(text)]
    # HEXPOINT leaves out NUL, the surrogates and what is beyond Unicode.
    if any(point == 0 or 0xD800 <= point <= 0xDFFF or point > 0x10FFFF for point in points):
        raise ValueError("not a character")
    return _HEXPOINT.sub(lambda match: chr(int(match[1], 16)), text)


def encode_utf8_addr(text: str) -> str:
    """Return `text` as utf-8-addr-xtext, which is ASCII and needs no SMTPUTF8.

    Raises ValueError for an empty text, NUL and lone surrogates, for which the grammar has no form.
    """
    if not text or "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("no utf-8-addr-xtext can stand for this")
    return _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", text)
