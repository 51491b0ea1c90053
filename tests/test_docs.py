"""The documents say what the code does."""

from __future__ import annotations

import textwrap
from pathlib import Path

from gsmtp.cli import settings_text

ROOT = Path(__file__).parent.parent


def test_the_settings_page_is_what_the_command_prints() -> None:
    page = (ROOT / "docs" / "settings.rst").read_text()
    assert page.endswith("::\n\n" + textwrap.indent(settings_text(), "    ") + "\n")


def test_every_hook_is_in_the_handlers_page() -> None:
    from gsmtp.server.hooks import HOOKS

    page = (ROOT / "docs" / "handlers.rst").read_text()
    assert [name for name in HOOKS if f"``{name}(" not in page] == []


def test_every_kind_of_session_is_in_the_soak_s_page() -> None:
    from gsmtp.soak.traffic import CONVERSATIONS

    page = (ROOT / "docs" / "soak.rst").read_text()
    assert [name for name in CONVERSATIONS if f"\n{name} " not in page] == []
