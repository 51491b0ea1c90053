"""The documents say what the code does."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from settings_page import PAGE, page  # noqa: E402


def test_the_settings_page_is_what_the_command_prints() -> None:
    present = PAGE.read_text()
    assert present == page(present), "run scripts/settings_page.py and commit what it writes"


def test_every_hook_is_in_the_handlers_page() -> None:
    from gsmtp.server.hooks import HOOKS

    page = (ROOT / "docs" / "handlers.rst").read_text()
    assert [name for name in HOOKS if f"``{name}(" not in page] == []
