"""SMTP replies: frozen values that are encoded in one place, and the exceptions that carry one.

A reply is a code (RFC 5321 4.2), an enhanced status code (RFC 3463) and a text of one line or more. A hook raises
`Reject`, `Defer` or `Disconnect` to refuse. This module imports nothing of gsmtp. Weak: a character that must not be
sent becomes "?" without a word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# RFC 5321 4.2: Reply-code = %x32-35 %x30-35 %x30-39. RFC 3463 2: status-code = class "." subject "." detail
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
# RFC 5321 4.2: textstring = 1*(%d09 / %d32-126). Other characters, above all CR and LF, must never be sent.
_NOT_TEXT = re.compile(r"[^\t\x20-\x7e]")
# RFC 5321 4.5.3.1.5: a reply line is at most 512 octets with code and CRLF.
_LINE_LENGTH = 480


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply: `code` 200 to 599, `enhanced` such as "2.1.0" or "" for none, `text` with "\\n" between lines.

    Raises ValueError for a code or an enhanced status code that RFC 5321 and 3463 do not allow, or for an enhanced
    code whose class is not that of the code. Characters that may not stand in a reply are sent as "?".
    """

    code: int
    enhanced: str = ""
    text: str = ""
    wire: bytes = field(default=b"", init=False, repr=False, compare=False)
    _shown: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (200 <= self.code <= 599 and self.code // 10 % 10 <= 5):
            raise ValueError(f"not a reply code: {self.code}")
        if self.enhanced:
            if not _ENHANCED.fullmatch(self.enhanced):
                raise ValueError(f"not an enhanced status code: {self.enhanced!r}")
            if self.enhanced[0] != str(self.code)[0]:
                raise ValueError(f"enhanced status code {self.enhanced} does not fit reply code {self.code}")

    @property
    def accepted(self) -> bool:
        """Whether the code accepts: 2xx or 3xx."""
        return self.code < 400

    def __str__(self) -> str:
        if not self._shown:
            parts = (str(self.code), self.enhanced, self.text.replace("\n", " / "))
            object.__setattr__(self, "_shown", " ".join(part for part in parts if part))
        return self._shown

    def encode(self) -> bytes:
        """Return the octets to send. Each line ends with CRLF (RFC 5321 4.2.1) and has the enhanced code (RFC 2034 4).

        `wire` keeps them: most replies are sent many times, and reading an attribute is faster than a call.
        """
        if self.wire:
            return self.wire
        prefix = f"{self.enhanced} " if self.enhanced else ""
        lines: list[str] = []
        for line in self.text.split("\n"):
            line = _NOT_TEXT.sub("?", line)
            lines.extend(line[at : at + _LINE_LENGTH] for at in range(0, len(line) or 1, _LINE_LENGTH))
        wire = [f"{self.code}-{prefix}{line}\r\n" for line in lines[:-1]]
        wire.append(f"{self.code} {prefix}{lines[-1]}\r\n")
        object.__setattr__(self, "wire", "".join(wire).encode("ascii"))
        return self.wire


class ReplyError(Exception):
    """The base class of refusals; `reply` is the reply to give. Raise a subclass: `Reject`, `Defer`, `Disconnect`."""

    default = Reply(550, "5.0.0", "Refused")
    classes: tuple[int, ...] = (4, 5)

    def __init__(self, code: int | None = None, enhanced: str | None = None, text: str | None = None) -> None:
        """Raises ValueError for a code that this class must not carry, and as `Reply` does."""
        if code is None:
            code, enhanced = self.default.code, enhanced or self.default.enhanced
        if code // 100 not in self.classes:
            raise ValueError(f"{type(self).__name__} takes a code of {self.classes[0]}xx, not {code}")
        if enhanced is None:
            enhanced = f"{code // 100}.0.0"
        self.reply = Reply(code, enhanced, self.default.text if text is None else text)
        super().__init__(str(self.reply))


class Reject(ReplyError):
    """A permanent refusal (5xx): the sender should not try again. `Reject(550, "5.1.1", "No such user here")`."""

    default = Reply(550, "5.7.1", "Refused")
    classes: tuple[int, ...] = (5,)


class Defer(ReplyError):
    """A temporary refusal (4xx): the sender should try later. `Defer(451, "4.3.0", "Database is away")`."""

    default = Reply(451, "4.3.0", "Try again later")
    classes: tuple[int, ...] = (4,)


class Disconnect(ReplyError):
    """A refusal that closes the connection. `Disconnect()` says 421, `Disconnect(554, "5.7.1", "...")` says 554."""

    default = Reply(421, "4.7.0", "Closing connection")
    classes: tuple[int, ...] = (4, 5)
