"""The service extensions as one table: what EHLO announces, and the parameters of MAIL and RCPT each brings.

An extension is an entry with small parsers (parameters.py); the session knows none of them by name, but for the few
whose commands it has. What is announced may depend on the session (REQUIRETLS only under TLS), so an `ExtensionSet`
holds an `Offer` for each combination of conditions that has occurred. They are few, because an extension's text is
made from the listener's options alone.

Announcing is promising. An extension is on by default when the server itself keeps all it promises. It is `optional`
where the handler must act on what the client asks, and then off until the handler names it in its `extensions`, or
the setting `offer` does:

    DSN          notices of success, delay and failure have to be sent as NOTIFY and RET say
    REQUIRETLS   the message must not go on without verified TLS, and a notice about it neither
    MT-PRIORITY  the queue has to be worked off by it, and the priority passed on
    DELIVERBY    a message that is late has to be returned, or its sender told

On are, besides those of any server: CHUNKING and BINARYMIME, because content is kept to the octet and a handler that
stores it there has nothing to convert (one that relays to servers without BINARYMIME must hide it); LIMITS, which
promises nothing but tells a client early what it would learn by 452 or 421.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gsmtp.protocol import parameters, sasl
from gsmtp.protocol.envelope import Session
from gsmtp.protocol.parameters import ParameterError as ParameterError
from gsmtp.protocol.parameters import Parser
from gsmtp.protocol.server.options import Options
from gsmtp.protocol.xclient import XCLIENT_ATTRIBUTES, XFORWARD_ATTRIBUTES
from gsmtp.reply import Reply

# RFC 5321 4.1.1.1: ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-"), as esmtp-keyword in 4.1.2
_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*")
# RFC 9422 3: a limit's value has six digits at most
_MAX_LIMIT = 999_999


def _nothing(options: Options) -> str | None:
    return ""


@dataclass(frozen=True, slots=True)
class Extension:
    """`keyword`, and what it brings; parameter names in capitals. ValueError for a name that is none.

    `announce` gives what follows the keyword in EHLO's reply, "" for nothing, None to leave the extension out on this
    listener. `when` says whether this session has it; it is asked at HELO and EHLO, so what MAIL may carry is what was
    announced last. `needs`: keywords without which it is left out. `optional`: see the head of this file.
    """

    keyword: str
    announce: Callable[[Options], str | None] = _nothing
    mail: Mapping[str, Parser] = field(default_factory=dict)
    rcpt: Mapping[str, Parser] = field(default_factory=dict)
    when: Callable[[Options, Session], bool] | None = None
    needs: tuple[str, ...] = ()
    optional: bool = False

    def __post_init__(self) -> None:
        for name in (self.keyword, *self.mail, *self.rcpt):
            if not _KEYWORD.fullmatch(name):
                raise ValueError(f"not the name of an extension or a parameter: {name!r}")


def _limits(options: Options) -> str | None:
    limits = (("RCPTMAX", options.max_recipients), ("MAILMAX", options.max_transactions))
    return " ".join(f"{name}={min(value, _MAX_LIMIT)}" for name, value in limits if value > 0) or None


def _under_tls(options: Options, session: Session) -> bool:
    return session.tls is not None


def _trusted(options: Options, session: Session) -> bool:
    return session.trusted


def _starttls(options: Options, session: Session) -> bool:
    return options.tls != "never" and session.tls is None


def _auth(tls: bool, binding: bool = False, certificate: bool = False) -> Extension:
    """AUTH for sessions of one kind, because the mechanisms depend on it (RFC 4954 3)."""

    def when(options: Options, session: Session) -> bool:
        facts = session.tls
        if facts is None or not tls:
            return tls is (facts is not None)
        return (binding, certificate) == (bool(facts.channel_bindings), bool(facts.peer))

    def announce(options: Options) -> str | None:
        if options.auth == "never":
            return None
        names = sasl.offered(
            options.auth_hooks,
            tls=tls,
            channel_binding=binding,
            client_certificate=certificate,
            without_tls=options.auth_without_tls,
        )
        return " ".join(names) or None

    return Extension("AUTH", announce, {"AUTH": parameters.auth}, when=when)


# A later entry's parser takes the place of an earlier one's.
EXTENSIONS = (
    Extension("PIPELINING"),
    Extension("SIZE", lambda options: str(options.max_message_size), {"SIZE": parameters.size}),
    Extension("8BITMIME", mail={"BODY": parameters.body}),
    Extension("SMTPUTF8", mail={"SMTPUTF8": parameters.smtputf8}),
    Extension("ENHANCEDSTATUSCODES"),
    Extension("STARTTLS", when=_starttls),
    Extension("XCLIENT", lambda _: XCLIENT_ATTRIBUTES, when=_trusted),
    Extension("XFORWARD", lambda _: XFORWARD_ATTRIBUTES, when=_trusted),
    _auth(tls=False),
    *(_auth(True, binding, certificate) for binding in (False, True) for certificate in (False, True)),
    # LMTP has a reply for each recipient, also after a chunk that is refused; nobody sends BDAT there.
    Extension("CHUNKING", lambda options: None if options.lmtp else ""),
    # RFC 3030 3: BINARYMIME needs CHUNKING, and its BODY parameter is that of 8BITMIME with one value more.
    Extension("BINARYMIME", mail={"BODY": parameters.binary_body}, needs=("8BITMIME", "CHUNKING")),
    Extension("LIMITS", _limits),
    Extension(
        "DSN",
        mail={"RET": parameters.ret, "ENVID": parameters.envid},
        rcpt={"NOTIFY": parameters.notify, "ORCPT": parameters.orcpt},
        optional=True,
    ),
    Extension("REQUIRETLS", mail={"REQUIRETLS": parameters.requiretls}, when=_under_tls, optional=True),
    Extension(
        "MT-PRIORITY",
        lambda options: options.priority_profile,
        {"MT-PRIORITY": parameters.mt_priority},
        optional=True,
    ),
    # RFC 2852 2: without a min-by-time there is no minimum.
    Extension(
        "DELIVERBY",
        lambda options: str(options.min_deliver_by or ""),
        {"BY": parameters.deliver_by},
        optional=True,
    ),
)

# RFC 5321 4.1.2: esmtp-param = esmtp-keyword ["=" esmtp-value]; esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
# esmtp-value = 1*(%d33-60 / %d62-126), to which RFC 6531 3.3 adds UTF8-non-ascii
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\u0080-\U0010ffff]+))?")


class Offer:
    """What a session has now: `lines` are those of EHLO's reply after the first, `ehlo` that reply."""

    __slots__ = ("_mail", "_options", "_rcpt", "ehlo", "keywords", "lines")

    def __init__(self, options: Options, extensions: Iterable[tuple[Extension, str]]) -> None:
        self.lines: tuple[str, ...] = ()
        self._options = options
        self._mail: dict[str, Parser] = {}
        self._rcpt: dict[str, Parser] = {}
        self.keywords: frozenset[str] = frozenset()
        for extension, said in extensions:
            self.lines += (f"{extension.keyword} {said}".rstrip(),)
            self.keywords |= {extension.keyword}
            self._mail.update(extension.mail)
            self._rcpt.update(extension.rcpt)
        # RFC 2034 4: no enhanced code in the reply to HELO and EHLO.
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


class ExtensionSet:
    """The extensions that a listener has, made once and shared by its sessions.

    `claimed` are those of the handler: its own, and the keywords of the optional ones that it honours.
    `banner` and `helo` are replies that need no decision. ValueError: see `_chosen`.
    """

    def __init__(
        self,
        options: Options,
        extensions: Iterable[Extension] = EXTENSIONS,
        claimed: Iterable[Extension | str] = (),
    ) -> None:
        self._options = options
        self._extensions = _announced(options, _chosen(options, tuple(extensions), tuple(claimed)))
        # What our own extensions ask for is known; the handler's may ask anything.
        ours = {id(each) for each in EXTENSIONS}
        self._conditions = tuple(
            each.when for each, _ in self._extensions if each.when is not None and id(each) not in ours
        )
        self._offers: dict[tuple[bool, ...], Offer] = {}
        # RFC 5321 4.2: Greeting = "220 " (Domain / address-literal) [ SP textstring ] CRLF
        self.banner = Reply(220, "", f"{options.hostname} {options.banner}".rstrip())
        self.helo = Reply(250, "", options.hostname)

    def offer(self, session: Session) -> Offer:
        """What `session` has, as it stands now: under TLS or not, authenticated or not."""
        options, tls = self._options, session.tls
        state: tuple[bool, ...] = (session.trusted, False, False, False)
        if tls is not None:
            state = (session.trusted, True, bool(tls.peer), bool(tls.channel_bindings))
        if self._conditions:
            state += tuple([when(options, session) for when in self._conditions])
        offer = self._offers.get(state)
        if offer is None:
            now = [pair for pair in self._extensions if pair[0].when is None or pair[0].when(options, session)]
            offer = self._offers[state] = Offer(options, now)
        return offer


def _chosen(
    options: Options, extensions: tuple[Extension, ...], claimed: tuple[Extension | str, ...]
) -> list[Extension]:
    """Without what is optional and not asked for, without what is hidden.

    Raises ValueError for a keyword in `claimed`, `options.offer` or `options.hide` that no extension has, and for a
    claimed extension whose keyword or parameter another has.
    """
    own = [each for each in claimed if isinstance(each, Extension)]
    offered = options.offer.union(each.upper() for each in claimed if isinstance(each, str))
    known = {each.keyword for each in extensions}
    if unknown := sorted(offered - known):
        raise ValueError(f"there is no extension {unknown[0]}")
    taken = known | {f"parameter {name}" for each in extensions for name in (*each.mail, *each.rcpt)}
    for each in own:
        names = {each.keyword, *(f"parameter {name}" for name in (*each.mail, *each.rcpt))}
        if clash := sorted(names & taken):
            raise ValueError(f"the extension {each.keyword} claims {clash[0]}, which another has")
        taken |= names
    if unknown := sorted(options.hide - known - {each.keyword for each in own}):
        raise ValueError(f"there is no extension {unknown[0]} to hide")
    usual = [each for each in extensions if not each.optional or each.keyword in offered]
    return [each for each in (*usual, *own) if each.keyword not in options.hide]


def _announced(options: Options, extensions: list[Extension]) -> tuple[tuple[Extension, str], ...]:
    """With the text of each, and without those that have none or lack another."""
    said = [(each, text) for each in extensions if (text := each.announce(options)) is not None]
    there = {each.keyword for each, _ in said}
    return tuple(pair for pair in said if there.issuperset(pair[0].needs))
