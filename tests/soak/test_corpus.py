"""A user's own mail, in all forms in which it lies about; and a user's own handler."""

from __future__ import annotations

import mailbox
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from harness.soak import in_order

from gsmtp.soak.corpus import Corpus, CorpusError
from gsmtp.soak.harness import OWN_HANDLER, Harness, HarnessConfig

MAIL = b"From: a@example.org\nSubject: %d\n\nFrom here on\n.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two loose mails, an mbox of two, a Maildir of two, and what is no mail."""
    folder = tmp_path / "mail"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one.eml").write_bytes(MAIL % 1)
    (folder / "deep" / "er" / "two.txt").write_bytes((MAIL % 2).replace(b"\n", b"\r\n"))
    box = mailbox.mbox(folder / "deep" / "box")
    for number in (3, 4):
        box.add(MAIL % number)
    box.close()
    maildir = mailbox.Maildir(folder / "Maildir")
    for number in (5, 6):
        maildir.add(MAIL % number)
    (folder / "notes").write_bytes(b"no mail at all\n")
    (folder / "empty.eml").write_bytes(b"")
    (folder / "large.eml").write_bytes(b"Subject: large\n\n" + b"x" * 5000)
    return folder


def test_all_three_forms_are_read(folder: Path) -> None:
    corpus = Corpus(folder, 4000)
    mails = list(corpus.mails())
    assert sorted(mail.kind for mail in mails) == ["file", "file", "maildir", "maildir", "mbox", "mbox"]
    assert sorted(mail.content for mail in mails) == [(MAIL % n).replace(b"\n", b"\r\n") for n in range(1, 7)]
    assert sorted(corpus.passed_over) == ["empty.eml: no mail", "large.eml: too large", "notes: no mail"]


def test_a_folder_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(CorpusError, match="no directory"):
        Corpus(folder / "notes", 4000)


USERS = """
from gsmtp import Handler, Reject

class Whole(Handler):
    def __init__(self, box="box"):
        self.box = box
    def on_start(self, worker):
        self.slot = worker.slot
    def on_rcpt(self, envelope, recipient):
        if recipient.local != self.box:
            raise Reject(550, "5.1.1", "No such user here")
    def on_message(self, envelope, message):
        assert self.slot == 0 and message.mime.subject

class Stream(Handler):
    def on_data(self, envelope, stream):
        stream.read(7)
        for piece in stream:
            pass
"""


@pytest.mark.parametrize(
    "handler",
    [{"class": OWN_HANDLER}, {"class": "users:Whole", "box": "mine"}, {"class": "users:Stream"}],
    ids=lambda handler: handler["class"],
)
def test_a_corpus_is_replayed_through_any_handler(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: Mapping[str, Any]
) -> None:
    (tmp_path / "users.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harness").mkdir()
    config = HarnessConfig(
        tmp_path / "harness",
        Corpus(folder, 4000).mails(),
        handler,
        workers=1,
        clients=1,
        recipient="mine@here.example" if "box" in handler else "box@here.example",
    )
    with Harness(config) as harness:
        assert harness.run_window({"plain": 1, "pipelining": 1, "chunking": 1, "starttls": 1}, messages=60) == 60
        harness.stop_server()
        in_order(harness)
