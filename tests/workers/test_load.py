from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gsmtp_workers import BootError
from gsmtp_workers.load import load


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """module(text) -> the name of a new module with that text."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names: list[str] = []

    def module(text: str) -> str:
        names.append(f"loaded_{len(names)}_{tmp_path.name}".replace("-", "_"))
        (tmp_path / f"{names[-1]}.py").write_text(text)
        return names[-1]

    yield module
    for name in names:
        sys.modules.pop(name, None)


def complaint(name: Any) -> Any:
    with pytest.raises(BootError) as caught:
        load(name)
    assert caught.value.status == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_there(module: Any) -> None:
    name = module("class A:\n    class B: pass\n")
    assert load(f"{name}:A.B").__qualname__ == "A.B"
    assert load("os.path:join")("a", "b") == "a/b"


def test_no_such_module() -> None:
    assert complaint("nowhere.at.all:x") == "cannot load nowhere.at.all:x: No module named 'nowhere'"


def test_no_such_attribute(module: Any) -> None:
    name = module("")
    assert complaint(f"{name}:Inbox.x") == f"cannot load {name}:Inbox.x: module {name} has no Inbox.x"


def test_not_a_name() -> None:
    for name in ("inbox", "inbox:", ":x"):
        assert "module:attribute" in complaint(name)


def test_a_syntax_error_names_its_line(module: Any) -> None:
    name = module("a = 1\nb = = 2\n")
    assert f"{name}.py, line 2: invalid syntax" in complaint(f"{name}:x")


def test_a_missing_import_names_the_line_that_wants_it(module: Any) -> None:
    name = module("a = 1\nimport surely_not_there\n")
    text = complaint(f"{name}:x")
    assert "No module named 'surely_not_there'" in text
    assert text.endswith(f"{name}.py, line 2)")


def test_other_exceptions_pass(module: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        load(f"{module('1 / 0')}:x")
