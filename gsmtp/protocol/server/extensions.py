"""The table of service extensions: what EHLO announces, and which parameters of MAIL and RCPT each extension has.

An extension is an entry in `EXTENSIONS`, with parsers from gsmtp/protocol/parameters.py. Sessions know no extension by
name, but for the few that have verbs. What is announced may depend on the session (REQUIRETLS only under TLS), so an
`ExtensionSet` keeps an `Offer` for each combination of conditions that has occurred. These are few, because an
extension's text is made from the listener's options alone.

An announced extension is a promise. An extension is on by default when the server itself keeps the promise. It is
`optional` when the handler must act on the client's request. It is off then until the handler names it in its
`extensions`, or the setting `offer` does:

    DSN          notices of success, delay and failure have to be sent as NOTIFY and RET say
    REQUIRETLS   the message and notices about it must not be sent on without verified TLS
    MT-PRIORITY  the queue has to be sorted by the priority, which has to be passed on
    DELIVERBY    a message that is late has to be returned, or its sender told

CHUNKING and BINARYMIME are on because content is kept to the octet, and a handler that stores it has nothing to
convert. A handler that relays to servers without BINARYMIME must hide it. LIMITS is on because it promises nothing: it
tells a client early what it would learn by 452 or 421.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gsmtp.protocol import parameters, sasl
from gsmtp.protocol.envelope import Session
from gsmtp.protocol.extensions import KEYWORD
from gsmtp.protocol.parameters import parse_parameters
from gsmtp.protocol.server.options import Options
from gsmtp.protocol.xclient import XCLIENT_ATTRIBUTES, XFORWARD_ATTRIBUTES
from gsmtp.reply import Reply

Parser = Callable[[str | None, Options], Any]
# RFC 9422 3: a limit's value has six digits at most
_MAX_LIMIT = 999_999


def _nothing(options: Options) -> str | None:
    return ""


@dataclass(frozen=True, slots=True)
class Extension:
    """One service extension.

    `keyword` and the names of parameters are in capitals. `announce` returns the text after the keyword in EHLO's
    reply, "" for none, or None to leave the extension out on this listener. `mail` and `rcpt` have the parsers of the
    parameters. `when` returns whether a session has the extension; it is called at HELO and EHLO, so MAIL may have the
    parameters that were announced last. `needs` has the keywords without which the extension is left out. `optional`
    is explained at the head of this file. Raises ValueError for a name that is none.
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
            if not KEYWORD.fullmatch(name):
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
    """Return AUTH for one kind of session, because the mechanisms depend on TLS (RFC 4954 3)."""

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


# When two entries have the same parameter, the later parser is used.
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


class Offer:
    """The extensions of a session since its last HELO or EHLO.

    `keywords` are their names, `ehlo` is EHLO's reply, and `lines` are its lines after the first.
    """

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
        """Return the typed values of MAIL's parameters. Raises ParameterError."""
        return parse_parameters(text, self._mail, self._options)

    def rcpt_parameters(self, text: str) -> dict[str, Any]:
        """Return the typed values of RCPT's parameters. Raises ParameterError."""
        return parse_parameters(text, self._rcpt, self._options)


class ExtensionSet:
    """The extensions of a listener, made once and shared by its sessions.

    `claimed` has the handler's own extensions, and the keywords of the optional ones that it honours. `banner` and
    `helo` are the default replies to a connection and to HELO. Raises ValueError for a keyword that no extension has,
    and for a claimed extension whose keyword or parameter another has.
    """

    def __init__(
        self,
        options: Options,
        extensions: Iterable[Extension] = EXTENSIONS,
        claimed: Iterable[Extension | str] = (),
    ) -> None:
        self._options = options
        self._extensions = _announced(options, _chosen(options, tuple(extensions), tuple(claimed)))
        # The conditions of our own extensions are known; the handler's must be called.
        ours = {id(each) for each in EXTENSIONS}
        self._conditions = tuple(
            each.when for each, _ in self._extensions if each.when is not None and id(each) not in ours
        )
        self._offers: dict[tuple[bool, ...], Offer] = {}
        # RFC 5321 4.2: Greeting = "220 " (Domain / address-literal) [ SP textstring ] CRLF
        self.banner = Reply(220, "", f"{options.hostname} {options.banner}".rstrip())
        self.helo = Reply(250, "", options.hostname)

    def offer(self, session: Session) -> Offer:
        """Return the offer for `session` in its present condition: with TLS or without, trusted or not."""
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
    """Return the extensions without optional ones that nobody offers and without hidden ones.

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
    """Return the extensions with their texts, without those that have none or lack one that they need."""
    said = [(each, text) for each in extensions if (text := each.announce(options)) is not None]
    there = {each.keyword for each, _ in said}
    return tuple(pair for pair in said if there.issuperset(pair[0].needs))
