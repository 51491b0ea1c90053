#!/usr/bin/env python3
"""Writes the list of settings in docs/settings.rst anew, from the settings themselves. Needs nothing installed."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "settings.rst"
_LIST = re.compile(r"(?<=::\n\n)(?:    .*\n|\n)+")


def page(present: str) -> str:
    """Return the page with the prose of `present` and the list as it is now.

    Raises ValueError if `present` does not have exactly one literal block.
    """
    from gsmtp.settings import describe

    written, lists = _LIST.subn(lambda _: textwrap.indent(describe(), "    ") + "\n", present)
    if lists != 1:
        raise ValueError(f"{PAGE} has {lists} literal blocks, not one")
    return written


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(PAGE.read_text()))
