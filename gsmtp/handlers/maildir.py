"""The default handler: stores mail in Maildirs, one for all, or one for each address or domain.

`on_message` returns, and the client is told 250, only when every copy is on the disk under its final name. After an
error no copy is left, and the client tries again. There is one copy per box, however many of its recipients the mail
has.

A stored file has Return-Path, Delivered-To for each recipient of this box, the trace fields of the server, and then the
content as it was sent, with its CRLF line ends. (A box that several recipients share names them all. It has one owner,
so this reveals no Bcc to a stranger.) File names follow https://cr.yp.to/proto/maildir.html, with the size as Maildir++
has it (",S=", octets of the file), so that readers and quotas need not ask the file system.

This file does not know SMTP beyond envelope and reply, how files become durable (gsmtp/storage/), or how addresses
become paths (gsmtp/handlers/boxes.py). Weaknesses: with a path by address and no list of domains every address makes a
box; quotas are the file system's; a box that is moved while a batch is being stored gets that batch in its new place.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import logging
import os
import re
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import gevent

from gsmtp.handler import Handler
from gsmtp.handlers.boxes import Boxes
from gsmtp.reply import Reject
from gsmtp.storage import Delivery, Store, sync_directory

logger = logging.getLogger("gsmtp.handler")

# Boxes that are known to exist. When they are forgotten, each costs a few system calls again. There is a limit
# because with a catch-all strangers name the boxes.
_REMEMBERED = 10_000
# Octets of all copies of a mail. Above it the mail has a writer of its own, so that no small mail waits for it.
_LARGE = 1 << 20
# Seconds. Crashes leave few and small files, and looking for them reads every box.
_SWEEP_INTERVAL = 6 * 3600.0
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FLAGS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Maildir(Handler):
    """Stores mail in Maildirs.

    `path` is the Maildir, or a template with {address}, {local}, {domain} (gsmtp/handlers/boxes.py).

    `domains` has names, as a list or a string with commas; mail for others gets 550 5.7.1. None takes all.

    `fsync` False answers 250 before the disk has the mail. It is for tests, and for mail that may be lost.

    `writers` is the number of processes per worker that write mail. One makes the largest batches; more help where a
    sync takes long and many can run at a time. Large mail has a writer of its own beside them, when there is some.

    `sweep_hours` is the age at which files in tmp/, which crashes have left, are removed, at start and then every few
    hours, by one worker. The default is the Maildir specification's; 0 means never.

    Each option may be a string, as it comes from the command line.
    """

    def __init__(
        self,
        path: str = "maildir",
        domains: Iterable[str] | str | None = None,
        fsync: bool | str = True,
        writers: int | str = 1,
        sweep_hours: float | str = 36,
    ) -> None:
        """Raises ValueError for a wrong option, and OSError for a path that cannot be written.

        The path is only looked at here: nothing is made.
        """
        if not isinstance(path, str):
            raise ValueError(f"path of a Maildir is a string, not {path!r}")
        self._boxes = Boxes(path)
        _look(self._boxes.root)
        self._domains = _domains(domains)
        self._fsync = _flag("fsync", fsync)
        self._sweep_age = _number("sweep_hours", sweep_hours, 0) * 3600
        self._store = Store(_count("writers", writers), sync=self._fsync)
        self._large = Store(sync=self._fsync)
        self._ready: set[str] = set()
        self._counter = itertools.count(1)
        self._sweeper: Any = None
        self._unique = self._host = ""

    def on_start(self, worker: Any) -> None:
        """Make the root, check that it can be written, and start a writer. Raises OSError with a text for people."""
        self._host = socket.gethostname().replace("/", "\\057").replace(":", "\\072")
        self._unique = f"P{os.getpid()}R{secrets.token_hex(4)}"
        root = self._boxes.root
        try:
            if self._boxes.single:
                _make_box(root, root, self._fsync)
            else:
                _make_directories(root)
            tempfile.TemporaryFile(dir=os.path.join(root, "tmp") if self._boxes.single else root).close()
        except OSError as error:
            raise _unwritable(error.errno, root) from None
        self._store.start()
        if getattr(worker, "slot", 0) != 0:
            return
        logger.info("mail is stored in %s", os.path.abspath(self._boxes.template))
        if self._sweep_age:
            self._sweeper = gevent.spawn(self._sweep_for_ever)

    def _sweep_for_ever(self) -> None:
        while True:
            gevent.get_hub().threadpool.apply(_sweep, (self._boxes.pattern, time.time() - self._sweep_age))
            gevent.sleep(min(self._sweep_age, _SWEEP_INTERVAL))

    def on_stop(self) -> None:
        """Finish the commits under way and end the writers."""
        if self._sweeper is not None:
            self._sweeper.kill(block=False)
        self._store.close()
        self._large.close()

    def on_rcpt(self, envelope: Any, recipient: Any) -> None:
        """Raise Reject for a domain that is not in `domains`.

        The bare postmaster has no domain and is always accepted (RFC 5321 4.5.1).
        """
        if self._domains is not None and recipient.domain and recipient.domain not in self._domains:
            raise Reject(550, "5.7.1", "Mail for this domain is not accepted here")

    def on_message(self, envelope: Any, message: Any) -> None:
        """Store a copy in each box. Raises OSError, and RuntimeError of the store; then no copy is left."""
        boxes: dict[str, dict[str, None]] = {}
        for recipient in envelope.recipients:
            path = self._boxes.path(recipient.local, recipient.domain)
            boxes.setdefault(path, {})[recipient.address] = None
        file = message.spool.fileno()
        content = message.spool.bytes() if file is None else (file, message.spool.size)
        return_path = _line("Return-Path", f"<{envelope.sender}>")
        prefixes = {
            box: b"".join((return_path, *(_line("Delivered-To", name) for name in names), message.trace))
            for box, names in boxes.items()
        }
        try:
            self._commit(prefixes, content)
        except FileNotFoundError:  # a box vanished since it was made
            self._ready.difference_update(prefixes)
            self._commit(prefixes, content)

    def _commit(self, prefixes: dict[str, bytes], content: bytes | tuple[int, int]) -> None:
        for box in prefixes:
            if box not in self._ready:
                gevent.get_hub().threadpool.apply(_make_box, (box, self._boxes.root, self._fsync))
                if len(self._ready) >= _REMEMBERED:
                    self._ready.clear()
                self._ready.add(box)
        deliveries = []
        for box, prefix in prefixes.items():
            now = time.time_ns() // 1000
            moment = f"{now // 1_000_000}.M{now % 1_000_000:06d}"
            size = len(prefix) + (len(content) if isinstance(content, bytes) else content[1])
            name = f"{moment}{self._unique}Q{next(self._counter)}.{self._host},S={size}"
            deliveries.append(Delivery(f"{box}/tmp/{name}", f"{box}/new/{name}", prefix, content))
        size = sum(delivery.size for delivery in deliveries)
        (self._store if size <= _LARGE else self._large).commit(deliveries)


def _line(name: str, value: str) -> bytes:
    """Return a header field. The protocol lets no control character into an address, but this does not rely on it."""
    return f"{name}: {_CONTROL.sub('?', value)}\r\n".encode("utf-8", "replace")


def _look(root: str) -> None:
    """Raise OSError when `root` is no directory that can be written, or cannot be made."""
    found = os.path.abspath(root)
    while not os.path.lexists(found):
        found = os.path.dirname(found)
    if not os.path.isdir(found):
        raise _unwritable(errno.ENOTDIR, root)
    if not os.access(found, os.W_OK | os.X_OK):
        raise _unwritable(errno.EACCES, root)


def _unwritable(error: int | None, root: str) -> OSError:
    text = f"the Maildir cannot be written: {os.strerror(error or errno.EIO)}"
    return OSError(error, text, os.path.abspath(root))


def _make_directories(path: str) -> None:
    """Make `path` and its missing parents with mode 0700, each durably in its parent. Raises OSError."""
    parent = os.path.dirname(path.rstrip("/")) or "."
    try:
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:
            _make_directories(parent)
            os.mkdir(path, 0o700)
    except FileExistsError:  # mostly another worker that was first
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
        return
    sync_directory(parent)


def _make_box(box: str, root: str, sync: bool) -> None:
    """Make what is missing of the Maildir `box`. Blocks. Raises OSError.

    It is synced in any case: another worker may have made it a moment ago and not have synced it yet.
    """
    for name in ("tmp", "new", "cur"):
        _make_directories(os.path.join(box, name))
    while sync:
        sync_directory(box)
        if box == root:
            break
        box = os.path.dirname(box) or "."
    if sync:
        with contextlib.suppress(PermissionError):  # the directory above our root need not be readable
            sync_directory(os.path.dirname(root) or ".")


def _sweep(pattern: str, before: float) -> None:
    """Remove regular files in tmp/ that were last changed before a time in seconds since 1970."""
    for box in glob.iglob(pattern):
        try:
            entries = list(os.scandir(f"{box}/tmp"))
        except OSError:
            continue
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode) and facts.st_mtime < before:
                    os.unlink(entry.path)
            except OSError:
                pass  # another worker sweeps too


def _domains(value: Iterable[str] | str | None) -> frozenset[str] | None:
    if value is None:
        return None
    names: list[object] = []
    if isinstance(value, str):
        names.extend(value.replace(",", " ").split())
    elif isinstance(value, (list, tuple, set, frozenset)):
        names.extend(value)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"domains of a Maildir is a list of domain names, not {value!r}")
    return frozenset(str(name).strip().lower() for name in names)


def _flag(name: str, value: bool | str) -> bool:
    found = value if isinstance(value, bool) else _FLAGS.get(str(value).strip().lower())
    if found is None:
        raise ValueError(f"{name} of a Maildir is true or false, not {value!r}")
    return found


def _count(name: str, value: int | str) -> int:
    number = _number(name, value, 1)
    if not number.is_integer():
        raise ValueError(f"{name} of a Maildir is a whole number, not {value!r}")
    return int(number)


def _number(name: str, value: float | str, least: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1
    if isinstance(value, bool) or not least <= number < 1e6:
        raise ValueError(f"{name} of a Maildir is a number of at least {least}, not {value!r}")
    return number
