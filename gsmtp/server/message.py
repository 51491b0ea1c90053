"""A whole message as `on_message` gets it: prepended header fields, the Received field, and the content in a spool."""

from __future__ import annotations

import contextlib
import email
import email.policy
import io
import os
import re
from email.message import EmailMessage
from typing import IO, cast

from gsmtp import mime
from gsmtp.protocol.envelope import Envelope
from gsmtp.server.readers import JoinedReader
from gsmtp.server.received import received
from gsmtp.server.spool import Spool, file_threads
from gsmtp.storage import copy_file, sync_directory, write_all

# RFC 5322 2.2: field names are printable US-ASCII without the colon.
_FIELD_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]+")
_NOT_FIELD_VALUE = re.compile(r"[\r\n\0]")
_COPY = 1 << 20
# A larger header section is cut off for `headers`, never for the message.
_MAX_HEADERS = 1 << 20


class SpooledMessage:
    """See gsmtp.handler.Message. `spool` has the content, and is closed when the hook has returned."""

    def __init__(self, envelope: Envelope, spool: Spool, hostname: str) -> None:
        self.id = envelope.id
        self.size = spool.size
        self.spool = spool
        self._envelope = envelope
        self._hostname = hostname
        self._trace: bytes | None = None
        self._prepended = b""
        self._headers: mime.Headers | None = None
        self._mime: mime.Message | None = None
        self._email: EmailMessage | None = None

    @property
    def trace(self) -> bytes:
        """The header lines before the content: the prepended fields, then the Received field."""
        if self._trace is None:
            self._trace = received(self._envelope, self._hostname)
        return self._prepended + self._trace

    @property
    def content(self) -> bytes:
        """The content alone, as the client sent it."""
        return self.spool.bytes()

    def open(self) -> IO[bytes]:
        """Return a new reader of trace and content. Raises ValueError once the spool is closed."""
        return cast(IO[bytes], io.BufferedReader(JoinedReader(self.trace, self.spool.open()), _COPY))

    @property
    def headers(self) -> mime.Headers:
        """The header fields, decoded when asked for; the body is not read."""
        if self._mime is not None:
            return self._mime.headers
        if self._headers is None:
            with self.open() as file:
                self._headers = mime.decode(file.read(_MAX_HEADERS)).headers
        return self._headers

    @property
    def mime(self) -> mime.Message:
        """The whole message, decoded piece by piece as it is asked for."""
        if self._mime is None:
            self._mime = mime.decode(self.bytes())
        return self._mime

    @property
    def email(self) -> EmailMessage:
        """The whole message as the standard library's EmailMessage, parsed when first asked for."""
        if self._email is None:
            self._email = email.message_from_bytes(self.bytes(), policy=email.policy.default)
        return self._email

    def prepend(self, name: str, value: str) -> None:
        """Put a header field before all others. Raises ValueError for a wrong name, or CR, LF or NUL in the value."""
        if not _FIELD_NAME.fullmatch(name):
            raise ValueError(f"not a header field name: {name!r}")
        if _NOT_FIELD_VALUE.search(value):
            raise ValueError(f"CR, LF or NUL in the value of {name}")
        self._prepended = f"{name}: {value}\r\n".encode() + self._prepended
        self._headers = self._mime = self._email = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the message to a new file, and sync the file and its directory. Raises FileExistsError, OSError.

        A thread does that, so that other sessions go on. When the hook is interrupted meanwhile, as by its deadline,
        the file is removed: the client was not told that its message is stored, and sends it again.
        """
        file = self.spool.fileno()
        # A descriptor of its own, because the spool may be closed before the thread is done.
        saving = _Saving(os.fspath(path), self.trace, self.spool.bytes() if file is None else os.dup(file))
        task = file_threads().spawn(saving.run)
        try:
            error = task.get()
        except BaseException:
            task.rawlink(lambda _: saving.remove())
            raise
        if error is not None:
            raise error

    def bytes(self) -> bytes:
        """Return trace and content in one. Raises ValueError once the spool is closed."""
        return self.trace + self.spool.bytes()


class _Saving:
    """The writing of one file, in a thread. `content`: octets, or the descriptor of a file, which is closed here."""

    def __init__(self, path: str, head: bytes, content: bytes | int) -> None:
        self._path = path
        self._head = head
        self._content = content
        self._made = False

    def run(self) -> Exception | None:
        """Return the error: the pool would print one that is raised."""
        try:
            self._write()
        except Exception as error:
            self.remove()
            return error
        finally:
            if isinstance(self._content, int):
                os.close(self._content)
        return None

    def _write(self) -> None:
        target = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._made = True
        try:
            if isinstance(self._content, bytes):
                write_all(target, [self._head, self._content])
            else:
                write_all(target, [self._head])
                copy_file(self._content, target, os.fstat(self._content).st_size)
            os.fsync(target)
        finally:
            os.close(target)
        sync_directory(os.path.dirname(os.path.abspath(self._path)))

    def remove(self) -> None:
        """Remove the file, if it was made. Call it when `run` has returned. Raises nothing."""
        if self._made:
            self._made = False
            with contextlib.suppress(OSError):
                os.unlink(self._path)
