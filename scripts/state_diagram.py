#!/usr/bin/env python3
"""Writes the tables and the diagram in docs/protocol.rst anew, from the tables in the code. Needs nothing installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "protocol.rst"
_PART = re.compile(r"(?ms)^(\.\. (states|diagram|transitions|verbs) begin\n).*?^(\.\. \2 end\n)")


def page(present: str) -> str:
    """Return the page with its prose as in `present` and its drawn parts as they are now.

    Raises ValueError when `present` does not have each part once.
    """
    parts = {"states": states(), "diagram": diagram(), "transitions": transitions(), "verbs": verbs()}
    found = [match[2] for match in _PART.finditer(present)]
    if sorted(found) != sorted(parts):
        raise ValueError(f"{PAGE} has the parts {found}, not each of {[*parts]} once")
    return _PART.sub(lambda match: f"{match[1]}\n{parts[match[2]]}\n{match[3]}", present)


def states() -> str:
    """The states and their meaning."""
    from gsmtp.protocol.server.commands import COMMANDS
    from gsmtp.protocol.server.states import State

    rows = [(state.name, state.value, "commands" if COMMANDS[state] else "") for state in State]
    return _table(("State", "What is true in it", "Takes"), rows)


def diagram() -> str:
    """For each state where it leads, as a literal block. What can happen in every state is left out."""
    from gsmtp.protocol.server.states import State
    from gsmtp.protocol.server.transitions import TRANSITIONS

    lines = []
    for state in (state for state in State if state is not State.CLOSED):
        ways: dict[str, list[str]] = {}
        for transition in TRANSITIONS:
            if state in transition.to and len(transition.to) < len(State):
                ways.setdefault(transition.to[state].name, []).append(transition.happened)
        lines += [state.name]
        for after, reasons in ways.items():
            lines += [f"  {'|' if after != [*ways][-1] else '+'}--> {after:<10} {reason}" for reason in reasons]
        lines += [""]
    return "::\n\n" + "".join(f"    {line}".rstrip() + "\n" for line in lines[:-1])


def transitions() -> str:
    """The table of transitions."""
    from gsmtp.protocol.server.states import State
    from gsmtp.protocol.server.transitions import TRANSITIONS

    rows = []
    for transition in TRANSITIONS:
        before = "every state" if len(transition.to) == len(State) else ", ".join(state.name for state in transition.to)
        (after,) = set(transition.to.values())
        rows.append((transition.happened, before, after.name))
    return _table(("What happened", "States before", "State after"), rows)


def verbs() -> str:
    """For each verb and state, "yes" or the code of the reply that refuses it."""
    from gsmtp.protocol.server.commands import COMMANDS
    from gsmtp.reply import Reply

    taking = {state: actions for state, actions in COMMANDS.items() if actions}
    names = list(dict.fromkeys(verb for actions in taking.values() for verb in actions))
    rows = []
    for verb in names:
        actions = [actions[verb] for actions in taking.values()]
        rows.append((verb, *(str(each.code) if isinstance(each, Reply) else "yes" for each in actions)))
    return _table(("Verb", *(state.name for state in taking)), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    text = ".. list-table::\n   :header-rows: 1\n\n"
    for row in (head, *rows):
        first, *others = row
        text += f"   * - {first}\n" + "".join(f"     - {cell}".rstrip() + "\n" for cell in others)
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(PAGE.read_text()))
