"""scripts/compare_mime.py over mail: nothing raises, nothing is slow, all is written as it came, and where the standard
library finds something else, docs/mime.rst says why.

The mail is that of the fixtures, and that of others in the folder that GSMTP_CORPUS names. Without that folder the
tests of it say so and do not run: no mail of others is kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gsmtp import mime

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "scripts" / "compare_mime.py"
FIXTURES = Path(__file__).parent / "fixtures"
CORPUS = os.environ.get("GSMTP_CORPUS", "")

needs_corpus = pytest.mark.skipif(
    not CORPUS or not Path(CORPUS).is_dir(),
    reason=f"the corpus folder is not there: GSMTP_CORPUS={CORPUS!r} names no folder of mail",
)


def compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=500)


def test_every_difference_over_the_fixtures_is_explained_and_judged(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = compare(FIXTURES, "--json", out)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["mails"] == len(list(FIXTURES.iterdir())) and found["faults"] == 0 and found["same"] > 30
    judged = (ROOT / "docs" / "mime.rst").read_text()
    for kind in {each["kind"] for each in found["differences"]}:
        assert kind in " ".join(judged.split()), kind


def test_a_mailbox_is_taken_apart_and_a_folder_searched(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    mails = b"".join(b"From a@b.example Mon Jan  1 00:00:00 2024\nSubject: %d\n\nbody\n\n" % n for n in range(3))
    (tmp_path / "below" / "box").write_bytes(mails)
    (tmp_path / "one.raw").write_bytes(b"Subject: x\r\n\r\nbody\r\n")
    done = compare(tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("4 mails: 4 the same, 0 with 0 differences, 0 faults")


def test_what_must_not_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(b"Subject: x\r\n\r\nbody\r\n")
    done = compare(tmp_path, "--seconds", "0")
    assert done.returncode == 1 and "FAULT mail: took" in done.stdout
    assert compare(tmp_path / "nothing").returncode == 2


@needs_corpus
def test_no_mail_of_the_corpus_raises_or_is_slow_and_every_difference_is_explained() -> None:
    done = compare(CORPUS)
    assert done.returncode == 0, done.stdout
    print(done.stdout)


@needs_corpus
def test_every_mail_of_the_corpus_can_be_attached_and_is_fit_for_smtp() -> None:
    for path in sorted(path for path in Path(CORPUS).rglob("*") if path.is_file()):
        message = mime.decode(path.read_bytes())
        raw = mime.encode(mime.Message.build(from_="a@b.example", text="x", attachments=[message]))
        assert raw.isascii() and max(map(len, raw.split(b"\r\n"))) <= 998, path.name
        assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r") and b"\0" not in raw, path.name
