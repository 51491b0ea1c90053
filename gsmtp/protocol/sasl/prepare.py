"""SASLprep (RFC 4013): two ways to type the same name or password become one string.

PLAIN (RFC 4616 2) and SCRAM (RFC 5802 2.2, 5.1) ask for it. Printable ASCII passes as it is. RFC 3454 binds it to
Unicode 3.2: later characters count as unassigned, and only a query may hold them, not a stored string.
"""

from __future__ import annotations

import stringprep
from unicodedata import ucd_3_2_0

# RFC 4013 2.3. Table C.1.2 is among them because NFKC can produce such a space again.
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str, *, stored: bool = False) -> str:
    """Return `text` prepared as a query, or as a `stored` string.

    Raises ValueError if it cannot be prepared or is empty; the message does not hold the text.
    """
    if text.isascii() and text.isprintable():
        if not text:
            raise ValueError("empty")
        return text
    # RFC 4013 2.1, 2.2: non-ASCII spaces become a space, characters of table B.1 are removed, then comes NFKC.
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    result = ucd_3_2_0.normalize("NFKC", mapped)
    if not result:
        raise ValueError("empty when prepared")
    for character in result:
        if any(prohibited(character) for prohibited in _PROHIBITED):
            raise ValueError("has a character that SASLprep prohibits")
        if stored and stringprep.in_table_a1(character):
            raise ValueError("has a character that Unicode 3.2 does not know")
    # RFC 3454 6: a text with a right-to-left character has no left-to-right one, and begins and ends with the former.
    if any(map(stringprep.in_table_d1, result)) and (
        any(map(stringprep.in_table_d2, result))
        or not (stringprep.in_table_d1(result[0]) and stringprep.in_table_d1(result[-1]))
    ):
        raise ValueError("mixes right-to-left and left-to-right characters")
    return result
