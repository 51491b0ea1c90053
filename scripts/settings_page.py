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
    """The page with all its prose as in `present`, and the list as it is now. ValueError when it has not one list."""
    from gsmtp.cli import settings_text

    written, lists = _LIST.subn(lambda _: textwrap.indent(settings_text(), "    ") + "\n", present)
    if lists != 1:
        raise ValueError(f"{PAGE} has {lists} literal blocks, not one")
    return written


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(PAGE.read_text()))
