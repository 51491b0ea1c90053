"""Which directory an address has: a path template, filled in so that no address can do harm.

It promises: no address leads out of the template's root, whatever octets it is made of; two addresses share a
path only if the template leaves out what tells them apart, or if they differ in nothing but the case of ASCII
letters; the same address has the same path for ever. No lookup, no state, no file system.

Where it is weak: names beyond ASCII are hard to read in the escaped form. Their case is not folded, so É and
é are two boxes: folding by Unicode's tables makes the Kelvin sign a k and changes with the Unicode version.
"""

from __future__ import annotations

import glob
import hashlib
import os
import string

# What file systems allow for one name, in octets.
_NAME_MAX = 255
# A shortened value is a piece of it, a mark and 64 digits: with less room there is no piece that says
# anything.
_SHORTEST = 80
_MARK = "%_"

# Local parts may hold almost anything (RFC 5321 4.1.2, RFC 6531 3.3). These octets need no escape in a file
# name.
_FIRST = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_")
_PLAIN = _FIRST | frozenset(b".+=-")
_ALPHABET = frozenset(map(chr, _PLAIN)) | {"%"}
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def encode(value: str, limit: int = _NAME_MAX) -> str:
    """`value` as a part of a file name: ASCII, lower-case, at most `limit` octets, never empty, no "/", no
    leading dot.

    ASCII letters are lower-cased. Letters, digits and "_" stand for themselves, and so do ". + = -" but at
    the beginning; each other octet of the UTF-8 form is "%" and two hexadecimal digits, so Unicode's normal
    forms stay apart whatever a file system thinks of them. An empty value is "%". A longer one is cut and
    ended by "%_" and its SHA-256. None of these forms can be taken for another, so no two values meet.
    """
    octets = value.translate(_TO_LOWER).encode("utf-8", "surrogatepass")
    encoded = "".join(
        chr(octet) if octet in (_PLAIN if at else _FIRST) else f"%{octet:02x}" for at, octet in enumerate(octets)
    )
    if len(encoded) > limit:
        digest = hashlib.sha256(octets).hexdigest()
        encoded = encoded[: limit - len(_MARK) - len(digest)] + _MARK + digest
    return encoded or "%"


class Boxes:
    """A path template: "/var/mail/{domain}/{local}", or "/var/mail/{address}", which is short for
    "{local}@{domain}".

    `template` is what was given, `root` is the deepest directory that holds all boxes; `single` says that there is one
    box, and the root is it. `pattern` is for `glob`: it matches every box. A brace that is meant is doubled.

    Raises ValueError for a template that is empty, has an unknown placeholder, lets two addresses run into
    one another because nothing stands between two placeholders that cannot be part of an address, or has too
    long a name in it.
    """

    def __init__(self, template: str) -> None:
        says = f"the Maildir path {template!r}"
        if not template or "\0" in template:
            raise ValueError(f"{says} is empty or has a NUL in it")
        try:
            parsed = list(string.Formatter().parse(template.replace("{address}", "{local}@{domain}")))
        except ValueError as error:
            raise ValueError(f"{says} is not a template: {error}") from None
        self.template = template
        self._parts: list[tuple[str, str | None]] = []
        before = False
        for literal, name, form, conversion in parsed:
            if name is not None and (name not in ("local", "domain") or form or conversion):
                raise ValueError(f"{says} has a placeholder that is not {{address}}, {{local}} or {{domain}}")
            if before and name is not None and set(literal.lower()) <= _ALPHABET:
                raise ValueError(f"{says} lets two addresses share a box: put a '/' or '@' before {{{name}}}")
            before = before or name is not None
            self._parts.append((literal, name))
        self.single = not before
        first = self._parts[0][0]
        self.root = (first.rstrip("/") or "/") if self.single else os.path.dirname(first) or "."
        names = "".join(literal + ("\0" if name else "") for literal, name in self._parts).split("/")
        self.pattern = "/".join(glob.escape(name).replace("\0", "*") for name in names)
        self._limit = _NAME_MAX
        for name in names:
            if count := name.count("\0"):
                self._limit = min(self._limit, (_NAME_MAX - len(os.fsencode(name)) + count) // count)
        if self._limit < _SHORTEST:
            raise ValueError(f"{says} leaves less than {_SHORTEST} octets of a file name to a placeholder")

    def path(self, local: str, domain: str) -> str:
        """The box of local@domain; `domain` is "" for the bare postmaster."""
        if self.single:
            return self.root
        values = {"local": encode(local, self._limit), "domain": encode(domain, self._limit)}
        return "".join(literal + values[name] if name else literal for literal, name in self._parts)
