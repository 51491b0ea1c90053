"""Domain names in the one form in which they are looked up and compared: ASCII, lower case, no final dot.

A label with other characters (a U-label, RFC 5890) becomes an A-label, "xn--...", by the `idna` library (IDNA 2008 with
the mapping of UTS 46). It is optional, because few programs meet such names: pip install gsmtp[idna]. Python's own
"idna" codec is no substitute; by its rules, those of 2003, "straße" is another domain. Names in ASCII pass as they
are, with underscores too, and A-labels are not looked into.
"""

from __future__ import annotations


def ascii_name(name: str) -> str:
    """Return `name` in the form above; "" for the root. Raises ValueError when it cannot be put so."""
    if not name.isascii():
        name = _a_labels(name)
    return name.removesuffix(".").lower()


def _a_labels(name: str) -> str:
    try:
        import idna
    except ImportError:
        raise ValueError("an internationalized name needs the idna library: pip install gsmtp[idna]") from None
    try:
        mapped = idna.uts46_remap(name, std3_rules=False)
        return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in mapped.split("."))
    except idna.IDNAError as error:
        raise ValueError(str(error)) from None
