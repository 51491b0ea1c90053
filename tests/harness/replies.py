"""Every reply that gsmtp's source can make, found by reading it: so a new one cannot be forgotten by the tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent.parent.parent / "gsmtp"
# What makes a reply, or the text of one: what stands before its own arguments, and which argument is the text.
_MAKERS = {
    "Reply": ("", 2),
    "ParameterError": ("", 2),
    "_bad": ("501 5.5.4 ", 0),
    "XclientError": ("501 5.5.4 ", 0),
    "AddressError": ("501 5.1.[37] Bad (?:sender|recipient) address: ", 0),
}


@dataclass(frozen=True)
class Said:
    """A reply, or the reason of a failed AUTH: where it is made, and what it looks like, as a pattern."""

    place: str
    pattern: str


def replies(*rooms: str) -> list[Said]:
    """Those of the files of these rooms: the first line of each."""
    found = []
    for place, call in _calls(rooms):
        if call.func.id in _MAKERS:  # type: ignore[attr-defined]
            before, at = _MAKERS[call.func.id]  # type: ignore[attr-defined]
            if len(call.args) <= at or _patterns(call.args[at]) == [".*"]:
                continue  # a reply made of another, or of the handler's words
            if at == 2:
                code, enhanced = (_patterns(each) for each in call.args[:2])
                before = "".join(f"{each[0]} " for each in (code, enhanced) if each != [""])
            found += [Said(place, before + text.partition("\\\n")[0]) for text in _patterns(call.args[at])]
    return found


def failures(*rooms: str) -> list[Said]:
    """Why mechanisms refuse: what their log says."""
    found = []
    for place, call in _calls(rooms):
        if call.func.id in ("Refusal", "Failure"):  # type: ignore[attr-defined]
            found += [Said(place, text) for text in _patterns(call.args[1]) if text != ".*"]
    return found


def _calls(rooms: tuple[str, ...]) -> Iterator[tuple[str, ast.Call]]:
    for room in rooms:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def _patterns(node: ast.expr) -> list[str]:
    """What a text can be; what is put into it may be anything."""
    if isinstance(node, ast.Constant):
        return [re.escape(str(node.value))]
    if isinstance(node, ast.JoinedStr):
        return ["".join(_patterns(part)[0] for part in node.values)]
    if isinstance(node, ast.IfExp):
        return [*_patterns(node.body), *_patterns(node.orelse)]
    return [".*"]
