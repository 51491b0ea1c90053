"""A folder of a user's own mail: message files, mbox files and Maildirs at any depth.

What a file is follows from its place and its first octets, not from its name: a file in `cur` or `new` of a Maildir is
a mail, one that begins with "From " is an mbox, and any other whose first line looks like a header field is a mail.
Other files are passed over and counted. Line ends become CRLF, because DATA can send no other.
"""

from __future__ import annotations

import mailbox
import re
from collections.abc import Iterator
from pathlib import Path

from gsmtp.soak.mail import Mail

_FIELD = re.compile(rb"[\x21-\x39\x3b-\x7e]{1,100}[ \t]*:")
_NEWLINE = re.compile(rb"\r\n|\r|\n")


class CorpusError(Exception):
    """There is no folder of that name. The text is one line."""


class Corpus:
    """A folder of mail.

    `passed_over` names the files, and mails of an mbox, that `mails` has found to be no mail, too large or unreadable.
    """

    def __init__(self, directory: Path, largest: int) -> None:
        """`largest` is the limit of a mail's size in octets. Raises CorpusError."""
        if not directory.is_dir():
            raise CorpusError(f"{directory} is no directory")
        self._directory = directory
        self._largest = largest
        self.passed_over: list[str] = []

    def mails(self) -> Iterator[Mail]:
        """Yield the mails in the order of their paths."""
        for path in sorted(self._directory.rglob("*")):
            if not path.is_file():
                continue
            name = str(path.relative_to(self._directory))
            try:
                yield from self._of_file(path, name)
            except OSError as error:
                self.passed_over.append(f"{name}: {error.strerror}")

    def _of_file(self, path: Path, name: str) -> Iterator[Mail]:
        in_maildir = path.parent.name in ("cur", "new") and (path.parent.parent / "tmp").is_dir()
        with path.open("rb") as file:
            start = file.read(8192)
        if start.startswith(b"From ") and not in_maildir:
            box = mailbox.mbox(path, create=False)
            try:
                for index, key in enumerate(box.iterkeys()):
                    # mboxrd: a line that began with "From " was quoted.
                    content = re.sub(rb"(?m)^>(>*From )", rb"\1", box.get_bytes(key))
                    yield from self._mail("mbox", content, f"{name}, mail {index + 1}")
            finally:
                box.close()
        elif in_maildir or _FIELD.match(start):
            if path.stat().st_size > self._largest:
                self.passed_over.append(f"{name}: too large")
            else:
                yield from self._mail("maildir" if in_maildir else "file", path.read_bytes(), name)
        else:
            self.passed_over.append(f"{name}: no mail")

    def _mail(self, kind: str, content: bytes, name: str) -> Iterator[Mail]:
        content = _NEWLINE.sub(b"\r\n", content)
        if content and not content.endswith(b"\r\n"):
            content += b"\r\n"
        if not content:
            self.passed_over.append(f"{name}: empty")
        elif len(content) > self._largest:
            self.passed_over.append(f"{name}: too large")
        else:
            yield Mail(kind, content)
