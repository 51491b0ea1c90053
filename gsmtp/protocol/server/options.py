"""The settings that the protocol reads.

`PlainOptions` declares those that sessions read as the user wrote them. `ProtocolSettings` adds those that sessions
read in another form, and `Options` adds that form: a frozen value that all sessions of a listener share. `Options.of`
is the only place that derives one from the other.

To add a setting: declare it in `PlainOptions`, and read it from a session's options.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import TYPE_CHECKING, Literal

from gsmtp.declare import SettingsError, Table, setting, shown

if TYPE_CHECKING:
    from gsmtp.protocol.framing import BareNewlines

# RFC 5321 4.1.2: Domain = sub-domain *("." sub-domain), with the underscore that machines have in their names.
# RFC 1035 2.3.4: a label has at most 63 octets, a name 255.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,255}}\Z){_LABEL}(?:\.{_LABEL})*")


def is_domain(text: str) -> bool:
    """Return whether `text` is a domain name (RFC 5321 4.1.2), underscores allowed."""
    return _DOMAIN.fullmatch(text) is not None


def is_hostname(text: str) -> bool:
    """Return whether `text` is a domain name or an address literal (RFC 5321 4.1.3).

    Address literals are "[192.0.2.1]" and "[IPv6:2001:db8::1]".
    """
    if not text.startswith("["):
        return is_domain(text)
    address = text[1:-1].removeprefix("IPv6:")
    try:
        return text.endswith("]") and ipaddress.ip_address(address).version == (4 if address == text[1:-1] else 6)
    except ValueError:
        return False


def _check_hostname(text: str) -> None:
    if not is_hostname(text):
        raise SettingsError(f"hostname is no domain name: {shown(text)}")


def _check_banner(text: str) -> None:
    if not text.isprintable() or not text.isascii() or len(text) > 200:
        raise SettingsError("banner must be printable ASCII of at most 200 characters")


def _check_min_deliver_by(seconds: int) -> None:
    if seconds > 999_999_999:  # RFC 2852 4
        raise SettingsError("min_deliver_by must have nine digits at most")


def _check_priority_profile(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{0,20}", text):
        raise SettingsError(f"priority_profile is no name: {text!r}")


class PlainOptions(Table):
    """Settings that sessions read as the user wrote them. Sizes are octets."""

    hostname: str = setting("", "what the server calls itself; default: the machine's name", check=_check_hostname)
    banner: str = setting("ESMTP gsmtp", "what follows the host name in the greeting", check=_check_banner)
    max_message_size: int = setting(
        36_700_160, "octets of a message, 0 for no limit; 35 MiB take an attachment of 25 MB in base64"
    )
    max_recipients: int = setting(1000, "recipients of a message; RFC 5321 wants at least 100", 100)
    max_recipient_overshoot: int = setting(1000, "recipients refused with 452 in one message before 421")
    max_line_length: int = setting(12_290, "octets of a command; RFC 5321 wants 512, RFC 4954 12288 for AUTH", 512)
    max_content_line_length: int = setting(0, "octets of a line of a message, 0 for no limit; RFC 5321 says 1000")
    max_errors: int = setting(20, "refused commands between two accepted messages before 421, 0 for no limit")
    max_idle_commands: int = setting(100, "commands that bring no mail between two messages, 0 for no limit")
    max_transactions: int = setting(
        10_000, "transactions per connection, 0 for no limit; a long connection stays with one worker"
    )
    lenient_addresses: bool = setting(False, "accept addresses without brackets, after a space, or with stray dots")
    min_deliver_by: int = setting(
        0, "DELIVERBY: seconds, the shortest time that is accepted with R; 0 for any", check=_check_min_deliver_by
    )
    priority_profile: str = setting(
        "",
        "MT-PRIORITY: the name of a priority profile to announce, such as MIXER",
        check=_check_priority_profile,
    )
    auth_without_tls: bool = setting(False, "offer AUTH in clear too; whoever reads the network gets the passwords")
    max_auth_failures: int = setting(3, "failed AUTH commands of a connection before 421, 0 for no limit")
    scram_iterations: int = setting(
        4096, "iterations of SCRAM for handlers that give plain passwords; RFC 7677 says 4096", 4096
    )
    scram_stored_keys: bool = setting(
        False, "the handler gives ScramCredentials of scram_iterations; no keys are derived for any user, known or not"
    )


class ProtocolSettings(PlainOptions):
    """The protocol's part of a listener's table. See `Options` for the meaning of those that it adds."""

    allow_bare_newlines: bool | Literal["fix", "strip"] = setting(
        False, 'bare CR or LF in a message: false refuses it, true keeps it, "fix" makes it CRLF, "strip" drops it'
    )
    mixed_results: Literal["tempfail", "single"] = setting(
        "tempfail",
        "the handler refuses some recipients of a message: answer 451 for all, or accept only one recipient a message",
    )
    hide: list[str] = setting([], "extensions that are not offered, such as PIPELINING")
    offer: list[str] = setting(
        [], "optional extensions whose promises the handler keeps, such as DSN; docs/handlers.rst has the list"
    )
    auth: Literal["", "never", "offered", "required"] = setting(
        "", "AUTH: never, offered, or required before mail; default: offered if the handler has a hook for it"
    )
    tls: Literal["", "never", "offered", "required"] = setting(
        "", "STARTTLS: never, offered, or required before mail; default: offered if there is a certfile"
    )


class Options(PlainOptions):
    """What the sessions of a listener may do. It adds to the plain options:

    allow_bare_newlines  how content is read, see gsmtp.protocol.framing.
    hide, offer          keywords of extensions in upper case.
    tls, auth            whether STARTTLS and AUTH are offered, or required before mail.
    auth_hooks           the names of the handler's hooks for AUTH.
    auth_secret          32 octets from which salts for unknown users are made.
    lmtp                 whether the protocol is LMTP (RFC 2033).
    """

    allow_bare_newlines: BareNewlines = "reject"
    hide: frozenset[str] = frozenset()
    offer: frozenset[str] = frozenset()
    auth: Literal["never", "offered", "required"] = "never"
    tls: Literal["never", "offered", "required"] = "never"
    auth_hooks: frozenset[str] = frozenset()
    auth_secret: bytes = bytes(16)
    lmtp: bool = False

    @classmethod
    def of(
        cls,
        settings: ProtocolSettings,
        *,
        default_tls: Literal["never", "offered"] = "never",
        implicit_tls: bool = False,
        lmtp: bool = False,
        auth_hooks: frozenset[str] = frozenset(),
        auth_secret: str = "",
    ) -> Options:
        """Return the options that a listener's settings mean.

        `default_tls` is the meaning of an empty `tls`. With `implicit_tls` STARTTLS is never offered. An empty `auth`
        means that AUTH is offered if there are `auth_hooks`. LMTP has a reply for each recipient (RFC 2033 4.2), so
        there `mixed_results` does not limit a message to one recipient.
        """
        newlines = settings.allow_bare_newlines
        if isinstance(newlines, bool):
            newlines_read: BareNewlines = "accept" if newlines else "reject"
        else:
            newlines_read = newlines
        plain = PlainOptions.pick(settings)
        if settings.mixed_results == "single" and not lmtp:
            plain = plain.replace(max_recipients=1)
        return cls(
            **vars(plain),
            allow_bare_newlines=newlines_read,
            hide=frozenset(keyword.upper() for keyword in settings.hide),
            offer=frozenset(keyword.upper() for keyword in settings.offer),
            auth=settings.auth or ("offered" if auth_hooks else "never"),
            tls="never" if implicit_tls else settings.tls or default_tls,
            auth_hooks=auth_hooks,
            auth_secret=hashlib.sha256(f"gsmtp SCRAM {auth_secret}".encode()).digest(),
            lmtp=lmtp,
        )
