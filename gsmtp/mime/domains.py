"""Internationalized domains as A-labels (RFC 5890), the form that they have in mail without SMTPUTF8.

Labels are lower-cased, normalised (NFC) and put into Punycode, as IDNA 2008 does. They must consist of letters, marks,
digits and hyphens; whether a registry would allow them is not checked.
"""

from __future__ import annotations

import unicodedata


def to_ascii(domain: str) -> str:
    """Return a domain in ASCII: `"bücher.example"` gives `"xn--bcher-kva.example"`.

    Raises ValueError for what is no domain.
    """
    if domain.isascii():
        return domain
    return ".".join(_label(label) for label in domain.replace("。", ".").split("."))


def _label(label: str) -> str:
    if label.isascii():
        return label
    if len(label) > 63:
        raise ValueError(f"a label of a domain has at most 63 characters: {label!r:.80}")
    label = unicodedata.normalize("NFC", label.lower())
    if any(unicodedata.category(char)[0] not in "LMN" and char not in "-\u200c\u200d\u00b7" for char in label):
        raise ValueError(f"not a label of a domain: {label!r}")
    encoded = "xn--" + label.encode("punycode").decode("ascii")
    if len(encoded) > 63:
        raise ValueError(f"a label of a domain has at most 63 octets: {encoded}")
    return encoded
