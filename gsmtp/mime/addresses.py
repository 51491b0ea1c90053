"""Addresses of mail (RFC 5322 3.4, RFC 6532): a parser in one pass over tokens, and a writer that it reads back.

The parser reads what senders write: names without quotes, commas inside encoded words, routes, missing brackets. Names
are decoded after parsing, so no encoded word can forge a comma or a bracket. What cannot be an address is still
returned as the text it is, and noted as a defect. Whether a domain exists is not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from gsmtp.mime.charset import CHARSETS
from gsmtp.mime.defects import Note
from gsmtp.mime.fold import encode_words
from gsmtp.mime.lexical import QUOTED, comment_end, unescape, unfold
from gsmtp.mime.words import decode_words

# RFC 5322 3.2.3: atext and "."; what else may not stand in a name without quotes
_ATOM_TEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-\x80-\U0010ffff"
_PHRASE = re.compile(rf"[{_ATOM_TEXT} ]*")
_NEEDS_QUOTES = re.compile(r"[.]|=\?")
# One token: white space, an encoded word (senders leave commas in them), a special, a domain literal, an atom
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]++)"
    r"|(?P<word>=\?[^?\s]{1,75}\?[bBqQ]\?[^?<>\"]*+\?=)|(?P<literal>\[[^][\\,;<>\"]*+\])"
    r"|(?P<special>[,;][,; \t\r\n]*+|[:<>@\"(])|(?P<atom>(?:[^ \t\r\n,;:<>@\"(\[=]|=(?!\?))++|.)",
    re.S,
)
# RFC 5321 4.1.2 and RFC 6531 3.3: dot-string or quoted-string "@" domain or address literal
_ATOM = r"[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]+"
_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff-]+"
_ADDR = re.compile(
    rf"(?:{_ATOM}(?:\.{_ATOM})*|\"(?:[^\\\"\x00-\x1f\x7f]|\\[ -~])*\")"
    rf"@(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[!-Z^-~]+\])"
)


# name <address> and address alone, where nothing needs a second look
_COMMON = re.compile(
    rf"[ \t]*+(?:(?:\"([^\"\\]*+)\"[ \t]*+|([{_ATOM_TEXT} \t]*+))<([{_ATOM_TEXT}]++@[A-Za-z0-9.-]++)>"
    rf"|([{_ATOM_TEXT}]++@[A-Za-z0-9.-]++))[ \t]*+(?:,[ \t]*+|\Z)"
)


# A name and an address have their place in far less; what is longer is an attack
_LONGEST = 20_000


class Address(NamedTuple):
    """A mailbox.

    `name` is the decoded display name, "" without one. `addr` is `local@domain`; quotes of the local part are kept.
    """

    name: str
    addr: str

    @property
    def local(self) -> str:
        """The part before the last "@", with its quotes; all of `addr` when it has no "@"."""
        local, at, domain = self.addr.rpartition("@")
        return local if at else domain

    @property
    def domain(self) -> str:
        """The part after the last "@"; "" when `addr` has none."""
        return self.addr.rpartition("@")[2] if "@" in self.addr else ""

    def __str__(self) -> str:
        return format_address(self)


class Group(NamedTuple):
    """A named list of mailboxes (RFC 5322 3.4), often empty: `undisclosed-recipients:;`."""

    name: str
    members: tuple[Address, ...]

    def __str__(self) -> str:
        return format_addresses([self])


def parse_addresses(
    text: str,
    limit: int = 10_000,
    charsets: frozenset[str] = CHARSETS,
    note: Note | None = None,
) -> list[Address | Group]:
    """Return the mailboxes and groups of an address list, in order.

    Reads at most `limit` of them. Whatever the text is, it raises nothing.
    """
    text = unfold(text)
    if note is None and (simple := _simple(text, limit, charsets)) is not None:
        return simple
    return _Parser(text, limit, charsets, note).parse()


def _simple(text: str, limit: int, charsets: frozenset[str]) -> list[Address | Group] | None:
    """Return the list when all of it is of the common forms, as the parser would find it; else None."""
    out: list[Address | Group] = []
    at, length = 0, len(text)
    while at < length and len(out) < limit:
        found = _COMMON.match(text, at)
        if found is None:
            return None
        quoted, name, addr, bare = found.groups()
        if bare is not None:
            out.append(Address("", bare))
        else:
            name = (name if quoted is None else quoted).strip(" \t")
            out.append(Address(decode_words(name, charsets) if "=?" in name else name, addr))
        at = found.end()
    return out if at >= length else None


def valid_address(addr: str) -> bool:
    """Return whether `addr` is `local@domain` by RFC 5322 3.4.1, RFC 5321 4.1.2 and RFC 6532.

    It may have at most 320 characters.
    """
    return len(addr) <= 320 and _ADDR.fullmatch(addr) is not None


class _Parser:
    """The state of one pass: the words of the current mailbox, its address in brackets, and the current group."""

    def __init__(self, text: str, limit: int, charsets: frozenset[str], note: Note | None) -> None:
        self.text = text
        self.limit = limit
        self.charsets = charsets
        self.note = note
        self.found: list[Address | Group] = []
        self.count = 0
        self.group: str | None = None
        self.members: list[Address] = []
        self.clear()

    def clear(self) -> None:
        self.words: list[str] = []  # tokens before the bracket, " " between those with white space
        self.plain: list[str] = []  # the same as text for people: quotes resolved
        self.angle: list[str] | None = None
        self.open = False
        self.comments: list[str] = []

    def tell(self, code: str, text: str) -> None:
        if self.note is not None:
            self.note(code, text)

    def parse(self) -> list[Address | Group]:
        text, at, length = self.text, 0, len(self.text)
        begin = 0  # of the mailbox at hand
        quotable = commentable = True
        match = _TOKEN.match
        while at < length:
            found = match(text, at)
            assert found is not None  # its last branch takes any character
            kind, token = found.lastgroup, found[0]
            at = found.end()
            if kind != "special":
                if kind == "space":
                    self.space()
                elif self.angle is None:
                    self.words.append(token)
                    self.plain.append(token)
                else:
                    self.add(token, token)
            elif token == '"':
                quoted = QUOTED.match(text, at - 1) if quotable else None
                if quoted is None:
                    if quotable:
                        self.tell("unterminated_quotes", "a quoted string in an address has no end")
                    quotable = False
                else:
                    self.add(quoted[0], unescape(quoted[1]))
                    at = quoted.end()
            elif token == "(":
                end = comment_end(text, at - 1) if commentable else -1
                if end < 0:
                    if commentable:
                        self.tell("unterminated_comment", "a comment in an address has no end")
                    commentable = False
                    self.add(token, token)
                else:
                    self.comments.append(unescape(text[at : end - 1]).strip())
                    at = end
                    self.space()
            else:
                self.special(token)
                if not self.words and self.angle is None:
                    begin = at  # routes and stray colons go on with the mailbox, and count for its length
                if self.count >= self.limit:
                    self.tell("too_many_addresses", f"more than {self.limit}")
                    self.clear()
                    break
            if at - begin > _LONGEST:
                self.tell("bad_address", f"a mailbox longer than {_LONGEST} characters; the rest is not read")
                break
        self.flush()
        if self.group is not None:
            if self.count < self.limit:
                self.tell("bad_address", "a group has no end")
            self.end_group()
        return self.found

    def space(self) -> None:
        target = self.angle if self.open and self.angle is not None else self.words
        if target and target[-1] != " ":
            target.append(" ")
            if target is self.words:
                self.plain.append(" ")

    def add(self, token: str, plain: str) -> None:
        if self.open and self.angle is not None:
            self.angle.append(token)
        elif self.angle is not None:
            if token != ".":
                self.tell("bad_address", "text behind the address")
        else:
            self.words.append(token)
            self.plain.append(plain)

    def special(self, token: str) -> None:
        if token == "<":
            if self.angle:
                self.tell("bad_address", "a bracket opens inside or behind an address")
                if not self.open:  # "<a@b> <c@d>": two mailboxes without a comma
                    self.flush()
            self.angle = []
            self.open = True
        elif token == ">":
            if not self.open:
                self.tell("bad_address", "a bracket closes that was not opened")
            self.open = False
        elif token == "@":
            self.add(token, token)
        elif token[0] in ",;":
            ends = ";" in token
            if not ends and self.open and self.angle and self.angle[0] == "@":
                self.angle.append(",")  # RFC 5322 4.4: obs-route = "@" domain *("," "@" domain) ":"
            else:
                self.flush()
                if ends and self.group is not None:
                    self.end_group()
        elif self.open and self.angle is not None:
            if self.angle and self.angle[0] == "@":
                self.angle = []
            else:
                self.angle.append(token)
        elif self.group is None and self.words and self.angle is None and "@" not in self.words:
            self.group = self.phrase(self.plain)
            self.clear()
        else:
            self.add(token, token)

    def end_group(self) -> None:
        self.found.append(Group(self.group or "", tuple(self.members)))
        self.group, self.members = None, []
        self.count += 1

    def phrase(self, tokens: list[str]) -> str:
        name = "".join(tokens).strip(" \t\r\n")
        return decode_words(name, self.charsets) if "=?" in name else name

    def flush(self) -> None:
        """End the current mailbox, if there is one."""
        if self.angle is not None:
            if self.open:
                self.tell("bad_address", "a bracket has no end")
            if "@" in self.words:
                self.tell("bad_address", "a name with an at sign needs quotes")
            name, addr = self.phrase(self.plain), _spec(self.angle)
        elif self.words:
            name, addr = self.bare()
        else:
            if self.comments and self.group is None:
                self.tell("bad_address", "a comment alone")
            self.clear()
            return
        if not name and self.comments:
            name = decode_words(" ".join(self.comments), self.charsets)
        if self.note is not None and not _ADDR.fullmatch(addr):
            self.tell("bad_address", f"not an address: {addr or name!r:.80}")
        address = Address(name, addr)
        if self.group is None:
            self.found.append(address)
        else:
            self.members.append(address)
        self.count += 1
        self.clear()

    def bare(self) -> tuple[str, str]:
        """Return name and address of a mailbox without brackets: the last run with an "@" is the address."""
        while self.words and self.words[-1] == " ":
            self.words.pop()
            self.plain.pop()
        words = self.words
        if "@" not in words:
            return ("", "".join(words)) if " " not in words else (self.phrase(self.plain), "")
        at = len(words) - 1 - words[::-1].index("@")
        # White space around "@" and "." belongs to the address (RFC 5322 4.4: obs-local-part, obs-domain).
        start = at
        while start and (words[start - 1] != " " or _joins(words, start - 1)):
            start -= 1
        end = at + 1
        while end < len(words) and (words[end] != " " or _joins(words, end)):
            end += 1
        if start or end < len(words):
            self.tell("bad_address", "text beside an address without brackets")
        return self.phrase(self.plain[:start]), _spec(words[start:end])


def _joins(words: list[str], at: int) -> bool:
    """Return whether the white space at `at` is beside a dot or an "@", so that it joins."""
    before = words[at - 1][-1:] if at else ""
    after = words[at + 1][:1] if at + 1 < len(words) else ""
    return before in (".", "@") or after in (".", "@")


def _spec(tokens: list[str]) -> str:
    return "".join(token for at, token in enumerate(tokens) if token != " " or not _joins(tokens, at)).strip()


def quote_name(name: str) -> str:
    """Return a name as a phrase: unchanged when it is made of atoms, else quoted (RFC 5322 3.2.4, 3.2.5)."""
    if name == name.strip() and _PHRASE.fullmatch(name) and not _NEEDS_QUOTES.search(name):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _shown(name: str) -> str:
    """Return a name in one line of text. What looks like an encoded word is encoded, or it would be decoded again."""
    return " ".join(encode_words(name)) if "=?" in name else quote_name(name)


def format_address(address: Address) -> str:
    """Return `"Doe, John" <john@example.com>`, or the bare address without a name.

    Nothing is encoded: names may have any letters. Raises ValueError when name or address has CR, LF or NUL.
    """
    check_text(address.name)
    check_text(address.addr)
    return f"{_shown(address.name)} <{address.addr}>" if address.name else address.addr


def format_addresses(addresses: Iterable[Address | Group]) -> str:
    """Return an address list in one line that `parse_addresses` reads back. Raises ValueError as `format_address`."""
    out = []
    for item in addresses:
        if isinstance(item, Group):
            check_text(item.name)
            out.append(f"{_shown(item.name)}: {', '.join(map(format_address, item.members))};")
        else:
            out.append(format_address(item))
    return ", ".join(out)


def check_text(text: str) -> None:
    """Check a text for characters that could forge header fields.

    Raises ValueError for CR, LF and NUL, and for lone surrogates.
    """
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError(f"CR, LF and NUL may not stand in a header: {text!r:.80}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"a header holds a character that is no Unicode: {text!r:.80}") from None
