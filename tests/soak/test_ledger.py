"""What was promised against what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsmtp.soak.ledger import Balance
from gsmtp.soak.mail import Entry, Mail, write_bag


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    return write_bag(tmp_path / "bag", [Mail("text", b"one\r\n"), Mail("text", b"two\r\n")])


def balance(tmp_path: Path, entries: list[Entry], ledger: str, journal: str) -> Balance:
    """`journal`: an id and "0" or "1", the mail that came, a line."""
    (tmp_path / "ledger").write_text(ledger)
    lines = [line.split() for line in journal.split("\n") if line]
    known = {"0": entries[0].digest, "1": entries[1].digest}
    (tmp_path / "journal").write_text("".join(f"{id} {known.get(mail, mail)}\n" for id, mail in lines))
    found = Balance()
    found.add(entries, [tmp_path / "ledger"], [tmp_path / "journal"])
    assert not (tmp_path / "ledger").exists() and not (tmp_path / "journal").read_text()
    return found


def test_all_in_order(tmp_path: Path, entries: list[Entry]) -> None:
    found = balance(tmp_path, entries, "a 0 +\nb 1 +\nc 0 -\nd 0 ?\ne 1 ?\n", "b 1\na 0\ne 1\n")
    assert found.whole
    assert (found.sent, found.stored, found.refused, found.unsure) == (5, 2, 1, 2)


@pytest.mark.parametrize(
    ("ledger", "journal", "what"),
    [
        ("a 0 +\n", "", "lost"),
        ("a 0 +\n", "a 0\na 0\n", "doubled"),
        ("a 0 ?\n", "a 0\na 0\n", "doubled"),
        ("a 0 +\n", "a 1\n", "damaged"),
        ("a 0 ?\n", "a 1\n", "damaged"),
        ("a 0 +\n", "a 0\nz 0\n", "damaged"),
        ("a 0 -\n", "a 0\n", "unasked"),
    ],
)
def test_what_is_wrong_is_counted_and_named(
    tmp_path: Path, entries: list[Entry], ledger: str, journal: str, what: str
) -> None:
    found = balance(tmp_path, entries, ledger, journal)
    assert not found.whole
    assert {
        name: getattr(found, name) for name in ("lost", "doubled", "damaged", "unasked") if getattr(found, name)
    } == {what: 1}
    assert found.named in ([f"a {what}"], [f"z {what}"])
