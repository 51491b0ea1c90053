"""The entry to decoding: `decode` makes a `Message` of bytes."""

from __future__ import annotations

import mmap

from gsmtp.mime.check import check
from gsmtp.mime.defects import DEFAULT_LIMITS, Limits, MimeError
from gsmtp.mime.headers import Headers, scan
from gsmtp.mime.message import Message
from gsmtp.mime.part import Source
from gsmtp.mime.structure import grow


def decode(
    raw: bytes | bytearray | memoryview | mmap.mmap,
    strict: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> Message:
    """Return a mail as a `Message` (RFC 5322, 2045 to 2049). Only its header section is read now, the rest when needed.

    Broken content is salvaged, and `Message.defects` lists what was wrong. With `strict` the whole mail is checked now,
    and the first defect is raised as `MimeError`. An mmap must stay open as long as the message is used. A bytearray is
    copied, and so is a memoryview of anything but a whole bytes object. Raises TypeError for what is not bytes.
    """
    buffer: bytes | mmap.mmap
    if isinstance(raw, bytes | mmap.mmap):
        buffer = raw
    elif isinstance(raw, memoryview):
        whole = raw.obj
        buffer = whole if isinstance(whole, bytes) and len(whole) == raw.nbytes and raw.c_contiguous else bytes(raw)
    elif isinstance(raw, bytearray):
        buffer = bytes(raw)
    else:
        raise TypeError(f"decode takes bytes, memoryview or mmap, not {type(raw).__name__}")
    head = scan(buffer, 0, len(buffer), limits, mbox=True)
    message = Message(Source(limits, grow, check), Headers(head, limits), buffer, 0, head.body, len(buffer))
    if strict and (defects := message.defects):
        raise MimeError(*defects[0])
    return message
