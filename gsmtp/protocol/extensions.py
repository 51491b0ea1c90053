"""The service extensions as one table: what EHLO announces, and the parameters of MAIL and RCPT each brings.

An extension is an entry with small parsers; the session knows none of them by name. A parser takes the text after
"=" (None when there was none) and returns the typed value, or raises `ParameterError` with the reply to give.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gsmtp.protocol.options import Options
from gsmtp.reply import Reply

Parser = Callable[[str | None, Options], Any]


class ParameterError(Exception):
    """A parameter cannot be accepted; `reply` says why."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        self.reply = Reply(code, enhanced, text)
        super().__init__(str(self.reply))


def _nothing(options: Options) -> str | None:
    return ""


@dataclass(frozen=True, slots=True)
class Extension:
    """`announce` gives what follows the keyword in EHLO's reply, "" for nothing, None to leave the line out."""

    keyword: str
    announce: Callable[[Options], str | None] = _nothing
    mail: Mapping[str, Parser] = field(default_factory=dict)
    rcpt: Mapping[str, Parser] = field(default_factory=dict)


def _size(value: str | None, options: Options) -> int:
    # RFC 1870 4: size-value ::= 1*20DIGIT
    if value is None or not re.fullmatch(r"[0-9]{1,20}", value):
        raise ParameterError(501, "5.5.4", "SIZE takes a number of octets")
    size = int(value)
    if options.max_message_size and size > options.max_message_size:
        raise ParameterError(552, "5.3.4", f"Message larger than {options.max_message_size} octets")
    return size


def _body(value: str | None, options: Options) -> str:
    # RFC 6152 3: body-value ::= "7BIT" / "8BITMIME"
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise ParameterError(501, "5.5.4", "BODY takes 7BIT or 8BITMIME")
    return body


def _smtputf8(value: str | None, options: Options) -> bool:
    # RFC 6531 3.4: the parameter has no value
    if value is not None:
        raise ParameterError(501, "5.5.4", "SMTPUTF8 takes no value")
    return True


EXTENSIONS = (
    Extension("PIPELINING"),
    Extension("SIZE", lambda options: str(options.max_message_size), {"SIZE": _size}),
    Extension("8BITMIME", mail={"BODY": _body}),
    Extension("SMTPUTF8", mail={"SMTPUTF8": _smtputf8}),
    Extension("ENHANCEDSTATUSCODES"),
)

# RFC 5321 4.1.2: esmtp-param = esmtp-keyword ["=" esmtp-value]; esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
# esmtp-value = 1*(%d33-60 / %d62-126), to which RFC 6531 3.3 adds UTF8-non-ascii
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\u0080-\U0010ffff]+))?")


class ExtensionSet:
    """The extensions that a listener has, made once and shared by its sessions.

    `lines` are those of EHLO's reply after the first; `banner`, `helo` and `ehlo` the replies that need no decision.
    """

    def __init__(self, options: Options, extensions: Iterable[Extension] = EXTENSIONS) -> None:
        self._options = options
        self.lines: tuple[str, ...] = ()
        self._mail: dict[str, Parser] = {}
        self._rcpt: dict[str, Parser] = {}
        for extension in extensions:
            said = None if extension.keyword in options.hide else extension.announce(options)
            if said is None:
                continue
            self.lines += (f"{extension.keyword} {said}".rstrip(),)
            self._mail.update(extension.mail)
            self._rcpt.update(extension.rcpt)
        # RFC 5321 4.2: Greeting = "220 " (Domain / address-literal) [ SP textstring ] CRLF
        self.banner = Reply(220, "", f"{options.hostname} {options.banner}".rstrip())
        # RFC 2034 4: no enhanced code in the reply to HELO and EHLO.
        self.helo = Reply(250, "", options.hostname)
        self.ehlo = Reply(250, "", "\n".join((options.hostname, *self.lines)))

    def mail_parameters(self, text: str) -> dict[str, Any]:
        """MAIL's parameters, typed. Raises ParameterError."""
        return self._parse(text, self._mail) if text else {}

    def rcpt_parameters(self, text: str) -> dict[str, Any]:
        """RCPT's parameters, typed. Raises ParameterError."""
        return self._parse(text, self._rcpt) if text else {}

    def _parse(self, text: str, parsers: Mapping[str, Parser]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        # str.split would part them at control characters and at Unicode's white space too.
        for word in text.replace("\t", " ").split(" "):
            if not word:
                continue
            match = _PARAMETER.fullmatch(word)
            if match is None:
                raise ParameterError(501, "5.5.4", "Bad parameter syntax")
            keyword = match[1].upper()
            parser = parsers.get(keyword)
            if parser is None:
                raise ParameterError(555, "5.5.4", f"Parameter {keyword[:40]} not recognized or not implemented")
            if keyword in values:
                raise ParameterError(501, "5.5.4", f"Parameter {keyword} given twice")
            values[keyword] = parser(match[2], self._options)
        return values
