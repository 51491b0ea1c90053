"""What was promised against what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsmtp.soak.deliveries import DeliveryCounts
from gsmtp.soak.mail import Mail, MailEntry, write_mails


@pytest.fixture
def entries(tmp_path: Path) -> list[MailEntry]:
    return write_mails(tmp_path / "mails", [Mail("text", b"one\r\n"), Mail("text", b"two\r\n")])


def counts(tmp_path: Path, entries: list[MailEntry], results: str, accepted: str) -> DeliveryCounts:
    """`accepted`: an id and "0" or "1", the mail that came, a line."""
    (tmp_path / "results").write_text(results)
    lines = [line.split() for line in accepted.split("\n") if line]
    known = {"0": entries[0].digest, "1": entries[1].digest}
    (tmp_path / "accepted").write_text("".join(f"{id} {known.get(mail, mail)}\n" for id, mail in lines))
    found = DeliveryCounts()
    found.add_window(entries, [tmp_path / "results"], [tmp_path / "accepted"])
    assert not (tmp_path / "results").exists() and not (tmp_path / "accepted").read_text()
    return found


def test_all_in_order(tmp_path: Path, entries: list[MailEntry]) -> None:
    found = counts(tmp_path, entries, "a 0 +\nb 1 +\nc 0 -\nd 0 ?\ne 1 ?\n", "b 1\na 0\ne 1\n")
    assert found.ok
    assert (found.sent, found.stored, found.refused, found.unsure) == (5, 2, 1, 2)


@pytest.mark.parametrize(
    ("results", "accepted", "what"),
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
    tmp_path: Path, entries: list[MailEntry], results: str, accepted: str, what: str
) -> None:
    found = counts(tmp_path, entries, results, accepted)
    assert not found.ok
    assert {
        name: getattr(found, name) for name in ("lost", "doubled", "damaged", "unasked") if getattr(found, name)
    } == {what: 1}
    assert found.named in ([f"a {what}"], [f"z {what}"])
