"""Bytes to text, under a charset name that a stranger gave.

The name selects from an allow-list, because Python's codec registry also holds codecs that are not charsets (zlib,
rot13, unicode_escape) or whose time is not linear (punycode, idna). The result is text whatever the name and the bytes
are. These are tried in order: the named charset; its common superset, since senders name the small set and use the
large one; and without a known name utf-8, then cp1252, in which every byte is a character.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, charmap_decode, getincrementaldecoder
from collections.abc import Callable
from encodings.aliases import aliases
from functools import cache, lru_cache
from importlib import import_module

_NAMES = """
ascii utf_8 utf_7 utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le latin_1 iso8859_2 iso8859_3
iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9 iso8859_10 iso8859_11 iso8859_13 iso8859_14
iso8859_15 iso8859_16 cp037 cp273 cp424 cp437 cp500 cp720 cp737 cp775 cp850 cp852 cp855 cp856 cp857 cp858
cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869 cp874 cp875 cp932 cp949 cp950 cp1006 cp1026 cp1125 cp1140
cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 big5 big5hkscs euc_jp euc_jis_2004
euc_jisx0213 euc_kr gb2312 gbk gb18030 hz iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_2004
iso2022_jp_3 iso2022_jp_ext iso2022_kr johab koi8_r koi8_t koi8_u kz1048 mac_cyrillic mac_greek
mac_iceland mac_latin2 mac_roman mac_turkish ptcp154 shift_jis shift_jis_2004 shift_jisx0213 tis_620
hp_roman8
"""
CHARSETS: frozenset[str] = frozenset(_NAMES.split())

_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")


def _squeeze(name: str) -> str:
    return _NOT_ALPHANUMERIC.sub("", name.lower())


# Names as they come, without punctuation: "ISO_8859-1" and "iso8859 1" are the same.
_CODECS: dict[str, str] = {_squeeze(alias): codec for alias, codec in aliases.items() if codec in CHARSETS}
_CODECS.update({_squeeze(codec): codec for codec in CHARSETS})
_CODECS.update(
    {
        "iso88598i": "iso8859_8",
        "iso88598e": "iso8859_8",
        "iso88596i": "iso8859_6",
        "iso88596e": "iso8859_6",
        "isoir100": "latin_1",
        "usascii": "ascii",
        "ansix341968": "ascii",
        "unknown8bit": "ascii",
        "xunknown": "ascii",
        "unicode11utf7": "utf_7",
        "unicode11utf8": "utf_8",
        "utf8mb4": "utf_8",
        "xsjis": "cp932",
        "windows31j": "cp932",
        "cswindows31j": "cp932",
        "xeucjp": "euc_jp",
        "cp50220": "iso2022_jp",
        "ksc56011987": "cp949",
        "ksc5601": "cp949",
        "ksc56011989": "cp949",
        "windows949": "cp949",
        "xeuckr": "euc_kr",
        "xgbk": "gbk",
        "xcp1250": "cp1250",
        "xcp1251": "cp1251",
        "xcp1252": "cp1252",
        "windows874": "cp874",
        "macintosh": "mac_roman",
        "xmaccyrillic": "mac_cyrillic",
        "xmacroman": "mac_roman",
        "xbig5": "big5",
        "cnbig5": "big5",
        "cngb": "gb2312",
        "koi8": "koi8_r",
        "xkoi8r": "koi8_r",
    }
)

# What is tried when the named charset does not fit: the superset that senders mean (WHATWG Encoding has the
# same pairs).
_SUPERSETS: dict[str, str] = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "iso2022_jp": "iso2022_jp_ext",
    "euc_jp": "euc_jis_2004",
    "tis_620": "cp874",
    "iso8859_11": "cp874",
    "iso8859_9": "cp1254",
}

_PIECE = 64 * 1024
_MOST_MISFITS = 10_000

# cp1252 leaves five bytes undefined; as in WHATWG Encoding they stand for the control characters of that
# number.
_CP1252 = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256))


def _codec(name: str) -> str | None:
    return _cached_codec(name) if len(name) < 100 else None


@lru_cache(maxsize=256)
def _cached_codec(name: str) -> str | None:
    return _CODECS.get(_squeeze(name))


def codec_for(name: str, allowed: frozenset[str] = CHARSETS) -> str | None:
    """Return Python's codec for a charset name as mail has it, or None when it is unknown or not allowed."""
    codec = _codec(name)
    return codec if codec in allowed else None


def guess(data: bytes) -> str:
    """Return the text of bytes that name no charset: by utf-8, else by cp1252. Raises nothing."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return charmap_decode(data, "strict", _CP1252)[0]


def decode_text(
    data: bytes,
    charset: str | None,
    allowed: frozenset[str] = CHARSETS,
    note: Callable[[str, str], None] | None = None,
) -> str:
    """Return the text of `data` in the charset of that name. Raises nothing.

    What does not fit becomes U+FFFD, and is noted as a defect.
    """
    codec = _codec(charset) if charset else "ascii"
    if codec is None or codec not in allowed:
        if note is not None:
            note("unknown_charset", f"charset {charset!r:.60}")
        return guess(data)
    if codec == "ascii":
        if note is not None and not data.isascii():
            note("bad_character", "bytes above 127 in US-ASCII")
        return guess(data)
    try:
        if codec == "latin_1":
            # RFC-wise 0x80 to 0x9f are control characters; in mail they are always cp1252 under a wrong name.
            return charmap_decode(data, "strict", _CP1252)[0]
        return data.decode(codec)
    except UnicodeError:
        if note is not None:
            note("bad_character", f"bytes that are not {codec}")
    superset = _SUPERSETS.get(codec)
    if superset in allowed and superset is not None:
        try:
            return data.decode(superset)
        except UnicodeError:
            codec = superset
    return _replaced(data, codec)


@cache
def _table(codec: str) -> str | None:
    """Return the character of each byte in a single-byte charset, U+FFFD where it has none; None for other charsets."""
    table: str | None = getattr(import_module(f"encodings.{codec}"), "decoding_table", None)
    return None if table is None else table.replace("\ufffe", "\ufffd")


def _replaced(data: bytes, codec: str) -> str:
    """Return the text with U+FFFD for what does not fit.

    For each of these Python calls a function, which costs a hundred times what a character does. So single bytes go by
    a table, and bytes that are plainly in no such charset are guessed.
    """
    if table := _table(codec):
        return charmap_decode(data, "strict", table)[0]
    out: list[str] = []
    misfits = 0
    try:
        if codec in ("utf_16", "utf_32") and not data.startswith((BOM_UTF16_LE, BOM_UTF16_BE, BOM_UTF32_BE)):
            codec += "_le"  # as for the whole; in pieces the codecs insist on the mark
        decoder = getincrementaldecoder(codec)("replace")
        for at in range(0, len(data), _PIECE):
            out.append(decoder.decode(data[at : at + _PIECE], at + _PIECE >= len(data)))
            misfits += out[-1].count("\ufffd")
            if misfits > _MOST_MISFITS:
                out.append(guess(data[at + _PIECE :]))
                break
    except UnicodeError:  # some stateful codecs raise even so
        return guess(data)
    return "".join(out)
