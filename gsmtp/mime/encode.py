"""The entry to encoding: `encode` returns the bytes of a message, ours or the standard library's, and signs them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import Message as StdlibMessage
from email.policy import EmailPolicy
from typing import Any

from gsmtp.mime.build import complete_references
from gsmtp.mime.decoding import decode
from gsmtp.mime.dkim import DKIM
from gsmtp.mime.identifiers import make_message_id
from gsmtp.mime.message import Message
from gsmtp.mime.rebuild import rebuild
from gsmtp.mime.writer import CTE, Writer, encode_part


def encode(
    msg: Message | StdlibMessage[Any, Any],
    utf8: bool | None = None,
    cte: CTE = "7bit",
    dkim: DKIM | Sequence[DKIM] | None = None,
) -> bytes:
    """Return the bytes of a mail, with the signatures of `dkim` in front.

    `utf8` None writes header fields in ASCII unless the local part of an address needs UTF-8; then
    `Message.needs_smtputf8` is true and the mail may only go by SMTPUTF8. True writes them in UTF-8. `cte` is what the
    next hop can carry: "7bit", "8bit" (8BITMIME) or "binary" (BINARYMIME). Bcc is dropped from a mail that was built or
    changed.

    Raises ValueError for a mail without From, for an unknown `cte` and for what DKIM cannot sign, and NeedsSMTPUTF8
    when `utf8` is False and ASCII is not enough.
    """
    if cte not in ("7bit", "8bit", "binary"):
        raise ValueError(f"cte is 7bit, 8bit or binary, not {cte!r}")
    if isinstance(msg, StdlibMessage):
        msg = _from_stdlib(msg)
    if msg._source.encode is not None and msg.headers.raw("From") is None:
        raise ValueError("a mail needs From")
    raw = Writer(utf8, cte).write(msg)
    signers = [] if dkim is None else [dkim] if isinstance(dkim, DKIM) else list(dkim)
    return b"".join([*(signer.sign(raw) for signer in signers), raw]) if signers else raw


def _from_stdlib(msg: StdlibMessage[Any, Any]) -> Message:
    """Return a built message of one of the standard library's, with Date, Message-ID and MIME-Version."""
    policy = msg.policy.clone(linesep="\r\n", max_line_length=None, cte_type="8bit")
    if isinstance(policy, EmailPolicy):
        policy = policy.clone(utf8=True)
    message = rebuild(decode(msg.as_bytes(policy=policy)), encode_part)
    if "Date" not in message.headers:
        message.headers.add("Date", datetime.now(UTC))
    if "Message-ID" not in message.headers:
        message.headers.add("Message-ID", make_message_id())
    if "MIME-Version" not in message.headers:
        message.headers.add("MIME-Version", "1.0")
    complete_references(message.headers)
    return message
