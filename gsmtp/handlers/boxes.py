"""Finds the directory of an address: fills in a path template so that no address can do harm.

No address leads out of the template's root, whatever octets it has. Two addresses share a path only if the template
leaves out what tells them apart, or if they differ only in the case of ASCII letters. The same address always has the
same path. There are no lookups, no state and no access to the file system.

Weaknesses: names beyond ASCII are hard to read in the escaped form. Their case is not folded, so É and é are two boxes:
folding by Unicode's tables would make the Kelvin sign a k, and change with the Unicode version.
"""

from __future__ import annotations

import glob
import hashlib
import os
import string

# The octets that file systems allow for one name.
_NAME_MAX = 255
# A shortened value is a piece of it, a mark and 64 digits. With less room the piece would tell nothing.
_SHORTEST = 80
_MARK = "%_"

# Local parts may hold almost anything (RFC 5321 4.1.2, RFC 6531 3.3). These octets need no escape in a file
# name.
_FIRST = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_")
_PLAIN = _FIRST | frozenset(b".+=-")
_ALPHABET = frozenset(map(chr, _PLAIN)) | {"%"}
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def encode(value: str, limit: int = _NAME_MAX) -> str:
    """Return `value` as a part of a file name: ASCII, lower-case, 1 to `limit` octets, without "/" or a leading dot.

    ASCII letters are lower-cased. Letters, digits and "_" are kept, and so are ". + = -" except at the beginning. Each
    other octet of the UTF-8 form becomes "%" and two hexadecimal digits, so Unicode's normal forms stay apart whatever
    a file system does with them. An empty value becomes "%". A value that is too long is cut and ended by "%_" and its
    SHA-256. None of these forms can be taken for another, so no two values have the same name.
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
    """A path template: "/var/mail/{domain}/{local}", or "/var/mail/{address}", which is short for "{local}@{domain}".

    `template` is the text that was given. `root` is the deepest directory that holds all boxes. `single` says that
    there is only one box, which is then the root. `pattern` is for `glob`, and matches every box. A brace that is not a
    placeholder is doubled.
    """

    def __init__(self, template: str) -> None:
        """Raises ValueError for a template that cannot be used.

        It must not be empty, have an unknown placeholder or too long a name, and it must have between two placeholders
        what cannot be part of an address: else two addresses could share a box.
        """
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
        """Return the path of the box of local@domain. `domain` is "" for the bare postmaster."""
        if self.single:
            return self.root
        values = {"local": encode(local, self._limit), "domain": encode(domain, self._limit)}
        return "".join(literal + values[name] if name else literal for literal, name in self._parts)
