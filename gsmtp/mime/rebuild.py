"""Makes built parts of decoded ones, so that they are written anew with encodings that fit.

Header fields that are ASCII keep their bytes. The parts of a signed or encrypted multipart are kept as they came, since
a signature covers their bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from gsmtp.mime.addresses import parse_addresses
from gsmtp.mime.charset import guess
from gsmtp.mime.defects import DEFAULT_LIMITS
from gsmtp.mime.fields import ADDRESSES, Parameters, SetField, make_field
from gsmtp.mime.fold import fold, text_tokens
from gsmtp.mime.headers import Headers
from gsmtp.mime.identifiers import make_boundary
from gsmtp.mime.lexical import unfold
from gsmtp.mime.parameters import parse_parameters
from gsmtp.mime.part import Part, Source
from gsmtp.mime.words import decode_words

_Part = TypeVar("_Part", bound=Part)

_NEWLINE = re.compile(rb"\r\n|\r|\n")
_BREAKING = re.compile(r"[\r\n\0\ud800-\udfff]")
_SEALED = ("multipart/signed", "multipart/encrypted")


def rebuild(root: _Part, encode: Callable[[Part], bytes]) -> _Part:
    """Return a built copy of a decoded part and all parts below it. Whatever its headers hold, it raises nothing."""
    source = Source(DEFAULT_LIMITS, None, lambda part: [], encode)
    made = _shell(root, source)
    stack: list[tuple[Part, Part]] = [(root, made)]
    while stack:
        old, new = stack.pop()
        if old.content_type in _SEALED and old is not root:
            new._children = list(old.parts)
        elif old.parts:
            pairs = [(child, _shell(child, source)) for child in old.parts]
            new._children = [pair[1] for pair in pairs]
            stack += pairs
        elif (message := old.message) is not None:
            copy = _shell(message, source)
            new._embedded = copy
            stack.append((message, copy))
        else:
            content = old.content
            if old.content_type.startswith("text/") and b"\0" not in content:
                content = _NEWLINE.sub(b"\r\n", content)
            new._payload = content
    return made


def _shell(part: _Part, source: Source) -> _Part:
    """Return a part of the same class with the headers of another, and no content yet."""
    headers = Headers()
    for name, field, _ in part.headers.fields():
        if name and name.lower() not in ("content-type", "content-transfer-encoding"):
            headers.put(field if isinstance(field, SetField) else copied(name[:76], part.headers.value(field)))
    content_type, params = part._content_type()
    if part.parts:
        params = {**params, "boundary": make_boundary()}
    elif content_type.startswith("multipart/"):  # a multipart without parts is a leaf with the raw body
        content_type, params = "application/octet-stream", {}
    params = {name: _BREAKING.sub(" ", value) for name, value in params.items() if name.isalnum() or name.isascii()}
    try:
        headers.add("Content-Type", Parameters(content_type, params))
    except ValueError:
        keep: dict[str, str] = {name: params[name] for name in params if name in ("boundary", "charset")}
        headers.add("Content-Type", Parameters(content_type, keep))
    return type(part)(source, headers)


def copied(name: str, raw: bytes) -> SetField:
    """Return a field of a decoded mail as one that was set. ASCII keeps its bytes, unless a line is too long."""
    lines = [line for line in _NEWLINE.split(raw) if line.strip()]
    text = _BREAKING.sub(" ", unfold(guess(raw)))
    if raw.isascii() and b"\0" not in raw and all(len(line) < 900 for line in lines):
        value = b"\r\n".join([lines[0], *(b" " + line.lstrip() for line in lines[1:])]) if lines else b""
        return SetField(name, text, value)
    lower = name.lower()
    try:
        if lower in ADDRESSES:
            return make_field(name, parse_addresses(text))
        if lower in ("content-type", "content-disposition"):
            value_, params = parse_parameters(text)
            return make_field(name, Parameters(value_, params))
        return make_field(name, decode_words(text))
    except ValueError:
        return SetField(name, text, fold(name, text_tokens(text, False)))
