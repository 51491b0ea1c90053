"""Makes a safe file name of a name that a stranger gave."""

from __future__ import annotations

import re

# Control characters, characters that reverse or hide text, and what some file system refuses
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff<>:\"|?*]")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)", re.I)
_LONGEST = 255


def safe_filename(name: str) -> str:
    """Return the last component of `name`, made safe to create in a directory of one's own.

    It is never "" or ".", not hidden, and at most 255 bytes. Two parts may have one name: the caller must see that it
    does not overwrite a file.
    """
    name = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = _UNSAFE.sub("_", name).strip(" .")
    if not name:
        return "attachment"
    if _RESERVED.match(name):
        name = "_" + name
    encoded = name.encode("utf-8")
    if len(encoded) > _LONGEST:
        stem, dot, extension = name.rpartition(".")
        ending = (dot + extension).encode("utf-8") if dot and len(extension.encode()) < 20 else b""
        encoded = (stem if ending else name).encode("utf-8")[: _LONGEST - len(ending)]
        name = encoded.decode("utf-8", "ignore").rstrip(" .") + ending.decode("utf-8")
    return name
