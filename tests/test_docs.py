"""The documents say what the code does."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest

from gsmtp import Handler, handler
from gsmtp.protocol.server.extensions import EXTENSIONS
from gsmtp.server.hooks import HOOKS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import state_diagram  # noqa: E402
from settings_page import PAGE, page  # noqa: E402


def test_the_settings_page_is_what_the_command_prints() -> None:
    present = PAGE.read_text()
    assert present == page(present), "run scripts/settings_page.py and commit what it writes"


def test_the_protocol_s_page_is_drawn_from_its_tables() -> None:
    present = state_diagram.PAGE.read_text()
    assert present == state_diagram.page(present), "run scripts/state_diagram.py and commit what it writes"
    with pytest.raises(ValueError, match="parts"):
        state_diagram.page(present.replace(".. verbs begin", ""))


def test_every_hook_is_in_the_handlers_page_as_it_is_called() -> None:
    page = (ROOT / "docs" / "handlers.rst").read_text()
    for name in HOOKS:
        arguments = [*inspect.signature(getattr(Handler, name)).parameters][1:]
        head = f"   * - ``{name}({', '.join(arguments)})``\n"
        assert head in page, head
        cells = page.partition(head)[2].partition("   * - ")[0].splitlines()
        # When it is called, what None means, what may be raised.
        assert len([cell for cell in cells if cell.startswith("     -")]) == 3, name
    # The table at the head of gsmtp/handler.py has them too.
    assert [name for name in HOOKS if not re.search(rf"(?m)^    .*{name}[, ]", handler.__doc__ or "")] == []


def test_every_extension_is_in_the_handlers_page_with_its_parameters() -> None:
    page = (ROOT / "docs" / "handlers.rst").read_text()
    rows = re.findall(r"(?m)^   \* - ([A-Z0-9][A-Z0-9-]+(?:, [A-Z0-9-]+)*)\n     - .*\n     -(.*)$", page)
    listed = {keyword: parameters for keywords, parameters in rows for keyword in keywords.split(", ")}
    for each in EXTENSIONS:
        assert each.keyword in listed, each.keyword
        for name in (*each.mail, *each.rcpt):
            assert name in listed[each.keyword], (each.keyword, name)


def test_every_kind_of_session_is_in_the_soak_s_page() -> None:
    from gsmtp.soak.conversations import CONVERSATIONS

    page = (ROOT / "docs" / "soak.rst").read_text()
    assert [name for name in CONVERSATIONS if f"\n{name} " not in page] == []
