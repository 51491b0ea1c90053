"""Mail as in life: the same for the same seed, sizes by the law, nothing that DATA cannot carry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gsmtp import mime
from gsmtp.soak.generator import LARGEST, SMALLEST, generate, size_at
from gsmtp.soak.mail import MailFile, digest, write_mails

FEW = list(generate(7, 300, 4))


def test_the_same_seed_gives_the_same_mail() -> None:
    assert list(generate(7, 60, 2)) == list(generate(7, 60, 2))
    assert list(generate(7, 60, 2)) != list(generate(8, 60, 2))


def test_sizes_follow_the_law() -> None:
    sizes = [size_at(at / 100_000) for at in range(100_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == SMALLEST and size_at(1) == LARGEST
    assert 3_000 < sizes[50_000] < 6_000
    assert sum(size > 1_000_000 for size in sizes) in range(20, 60)
    assert sum(sizes) / len(sizes) < 12_000  # or a hundred thousand take too long


def test_mails_have_about_the_size_that_was_wanted() -> None:
    assert sum(mail.weight for mail in FEW) == pytest.approx(1)
    mean = sum(mail.weight * len(mail.content) for mail in FEW)
    assert 6_000 < mean < 14_000
    assert max(len(mail.content) for mail in FEW) == pytest.approx(LARGEST, rel=0.02)


def test_every_kind_is_there_and_can_be_sent_by_data() -> None:
    kinds = {"text", "html", "attachment", "related", "nested", "malformed", "8-bit", "smtputf8"}
    assert {mail.kind for mail in FEW} == kinds
    for mail in FEW:
        assert mail.content.endswith(b"\r\n")
        assert re.search(rb"(?<!\r)\n|\r(?!\n)", mail.content) is None, mail.kind


def test_what_is_called_well_formed_has_no_defects_and_the_malformed_has() -> None:
    for mail in FEW:
        if mail.kind in ("text", "html", "attachment", "related", "nested"):
            assert mime.decode(mail.content).defects == []
    assert sum(bool(mime.decode(mail.content).defects) for mail in FEW if mail.kind == "malformed") > 5


def test_the_bag_has_mails_as_they_go_over_the_wire(tmp_path: Path) -> None:
    entries = write_mails(tmp_path / "mails", FEW)
    mails = MailFile(tmp_path / "mails")
    assert mails.entries == entries
    for at, mail in enumerate(FEW):
        wire = bytes(mails.wire_form(at))
        assert wire.endswith(b"\r\n.\r\n") and b"\r\n.\r\n" not in wire[:-3]
        content = (b"\r\n" + wire[:-3]).replace(b"\r\n..", b"\r\n.")[2:]
        assert content == mail.content
        assert entries[at].digest == digest(mail.content) and entries[at].size == len(mail.content)
    assert any(entry.stuffed for entry in entries) and any(entry.smtputf8 for entry in entries)
