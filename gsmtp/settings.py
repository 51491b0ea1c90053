"""What can be set, where it comes from, and what is wrong with it, in one line.

The fields of `Settings` and `Listen` are the settings: a name, a type, a default, and a text for the documentation.
A TOML file and the command line give values for them; a key of `Listen` outside a [[listen]] table counts for all
listeners. Only values are looked at here; nothing is bound, imported or opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from gsmtp import values
from gsmtp.protocol.framing import BareNewlines
from gsmtp.protocol.server.options import Options
from gsmtp.values import SettingsError
from gsmtp.values import setting as _setting

__all__ = ["Listen", "Settings", "SettingsError"]

# RFC 5321 4.1.2: Domain = sub-domain *("." sub-domain), with the underscore that machines have in their names.
# RFC 1035 2.3.4: a label has at most 63 octets, a name 255.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,255}}\Z){_LABEL}(?:\.{_LABEL})*")
_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
# sockaddr_un's room for a path, less the NUL at its end.
_UNIX_PATH = 107
# lmtp has no port of its own (RFC 2033 5 forbids 25); 24 is what servers use.
DEFAULT_PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}
UNIX_SCHEMES = ("smtp+unix", "lmtp+unix")


@dataclass(kw_only=True)
class Listen:
    """One listener and its sessions."""

    bind: str = _setting(
        "", "smtp:// smtps:// lmtp:// HOST:PORT, smtp+unix:/PATH lmtp+unix:/PATH; [::] serves IPv4 too, port 0: any"
    )
    hostname: str = _setting("", "what the server calls itself; default: the machine's name")
    banner: str = _setting("ESMTP gsmtp", "what follows the host name in the greeting")
    max_message_size: int = _setting(36_700_160, "octets, 0 for no limit; 35 MiB take an attachment of 25 MB in base64")
    max_recipients: int = _setting(1000, "per message; RFC 5321 wants at least 100", 100)
    max_recipient_overshoot: int = _setting(1000, "recipients refused with 452 in one message before 421")
    max_line_length: int = _setting(12_290, "octets of a command; RFC 5321 wants 512, RFC 4954 12288 for AUTH", 512)
    max_content_line_length: int = _setting(0, "octets of a line of a message, 0 for no limit; RFC 5321 says 1000")
    max_errors: int = _setting(20, "refused commands between two accepted messages before 421, 0 for no limit")
    max_idle_commands: int = _setting(100, "commands that bring no mail between two messages, 0 for no limit")
    max_transactions: int = _setting(10_000, "per connection, 0 for no limit; a long one clings to one worker")
    allow_bare_newlines: bool | Literal["fix", "strip"] = _setting(
        False, 'bare CR or LF in a message: false refuses it, true keeps them, "fix" makes each CRLF, "strip" drops it'
    )
    lenient_addresses: bool = _setting(False, "take addresses without brackets, after a space, with stray dots")
    hide: list[str] = _setting([], "extensions that are not offered, such as PIPELINING")
    offer: list[str] = _setting([], "extensions that bind the handler: DSN, REQUIRETLS, MT-PRIORITY, DELIVERBY")
    min_deliver_by: int = _setting(0, "DELIVERBY: seconds, the shortest time that is accepted with R; 0 for any")
    priority_profile: str = _setting("", "MT-PRIORITY: the name of a priority profile to announce, such as MIXER")
    mixed_results: Literal["tempfail", "single"] = _setting(
        "tempfail", "a handler refused some recipients of a message: 451 for all, or take one recipient at a time"
    )
    tls: Literal["", "never", "offered", "required"] = _setting(
        "", "STARTTLS: never, offered, or required before mail; default: offered where there is a certfile"
    )
    certfile: str = _setting("", "certificate chain in PEM; smtps:// and STARTTLS need it")
    keyfile: str = _setting("", "its private key, unless that is in certfile; only root need be able to read it")
    certificates: dict[str, list[str]] = _setting(
        {}, 'other certificates by the name that a client asks for (SNI): "mx.example.org" = ["cert.pem", "key.pem"]'
    )
    client_ca: str = _setting("", "authorities (PEM) of client certificates; clients are asked for one, and need none")
    tls_minimum: Literal["1.2", "1.3"] = _setting("1.2", "the lowest version of TLS; older ones are broken")
    tls_ciphers: str = _setting("", "for TLS 1.2, as OpenSSL has it; default: OpenSSL's own choice")
    handshake_timeout: float = _setting(30.0, "seconds for the TLS handshake", 0.1)
    auth: Literal["", "never", "offered", "required"] = _setting(
        "", "AUTH: never, offered, or required before mail; default: offered where the handler has a hook for it"
    )
    auth_without_tls: bool = _setting(False, "offer AUTH in clear too; whoever reads the network gets the passwords")
    max_auth_failures: int = _setting(3, "failed attempts of a connection before 421, 0 for no limit")
    auth_failure_delay: float = _setting(1.0, "seconds before a failed attempt is answered, so that guessing is slow")
    scram_iterations: int = _setting(4096, "of SCRAM for handlers that give plain passwords; RFC 7677: 4096", 4096)
    scram_stored_keys: bool = _setting(
        False, "the handler gives ScramCredentials, of that many iterations: no user, known or not, costs deriving keys"
    )
    proxy_protocol: list[str] = _setting([], "networks of load balancers that send a PROXY header (v1, v2), and must")
    proxy_timeout: float = _setting(5.0, "seconds for that header; a balancer sends it at once", 0.1)
    xclient: list[str] = _setting([], "networks of peers whose XCLIENT and XFORWARD are believed; unix: local sockets")
    greet_delay: float = _setting(0.0, "seconds of silence before the banner; who talks in it is sent away with 554")
    reverse_lookup: bool = _setting(False, "look clients' names up in the DNS; the banner does not wait for it")
    limit_sessions: int = _setting(
        0, "sessions at a time per client address, 0 for no limit: a gateway may bring all mail"
    )
    limit_connections: int = _setting(0, "connections per client address and interval, 0 for no limit")
    limit_messages: int = _setting(0, "messages per client address and interval, 0 for no limit")
    limit_recipients: int = _setting(0, "recipients per client address and interval, 0 for no limit")
    limit_interval: float = _setting(60.0, "seconds of that interval", 1)
    limit_auth_failures: int = _setting(
        30, "failed logins per client address before AUTH is refused it; 0 for no limit"
    )
    limit_auth_interval: float = _setting(
        600.0, "seconds in which they count; a phone with an old password makes about 10", 1
    )
    limit_ipv6_prefix: int = _setting(
        64, "bits of an IPv6 address that tell clients apart; one customer has 64", 1, 128
    )
    limit_exempt: list[str] = _setting(["127.0.0.0/8", "::1"], "networks that have no limits per address")
    command_timeout: float = _setting(300.0, "seconds until the next command; RFC 5321 says 5 minutes", 0.1)
    content_timeout: float = _setting(180.0, "seconds until the next octets of a message; RFC 5321: 3 minutes", 0.1)
    write_timeout: float = _setting(300.0, "seconds until a client has taken its replies", 0.1)
    hook_timeout: float = _setting(60.0, "seconds for a hook of the handler; clients wait 5 minutes", 0.1)
    message_timeout: float = _setting(300.0, "seconds for on_message and on_data; clients wait 10 minutes", 0.1)
    linger: float = _setting(1.0, "seconds until a client that was sent away must have closed")
    drain_login: float = _setting(10.0, "draining: seconds until a TLS handshake or an AUTH exchange must be over")
    drain_transaction: float = _setting(30.0, "draining: seconds until an open transaction must have come to DATA")
    drain_content: float = _setting(300.0, "draining: seconds for the rest of a message")
    drain_silence: float = _setting(30.0, "draining: seconds without an octet of it")
    backlog: int = _setting(2048, "connections that may wait to be accepted", 1, 2**31 - 1)
    mode: str = _setting("0666", "permissions of a unix socket, in octal")


@dataclass(kw_only=True)
class Settings:
    """The whole server."""

    workers: int = _setting(0, "worker processes; default: one for each usable core", most=1000)
    user: str = _setting("", "workers run as this user (needs root)")
    group: str = _setting("", "and this group")
    chdir: str = _setting("", "the workers' directory, and the first place where handlers are sought")
    max_sessions: int = _setting(10_000, "connections per worker; further ones wait", 1)
    drain_timeout: float = _setting(660.0, "seconds from TERM until a worker ends whatever its sessions do", 1)
    auth_secret: str = _setting("", "makes SCRAM salts for users that do not exist; default: from the machine's id")
    limit_entries: int = _setting(16_384, "client addresses that a worker remembers; the oldest make room", 64, 2**20)
    nameservers: list[str] = _setting([], "for reverse_lookup; default: those of /etc/resolv.conf")
    spool_directory: str = _setting("", "where messages larger than spool_memory wait; default: TMPDIR or /tmp")
    spool_memory: int = _setting(262_144, "octets of a message that are kept in memory")
    log_file: str = _setting("-", "a file to append to, given to `user`; - for standard error")
    log_format: Literal["text", "json"] = _setting("text", "text or json, one line an event")
    log_level: Literal["debug", "info", "warning", "error"] = _setting("info", "info has a line for every message")
    handler: dict[str, Any] = _setting({}, "class = module:Class; the other keys go to its constructor")
    listen: list[Listen] = _setting([], "the listeners, one table each")

    def check(self) -> None:
        """Raise SettingsError for what no single value shows."""
        if not self.listen:
            raise SettingsError("nothing to listen on")
        for listen in self.listen:
            parse_bind(listen.bind)
            _check_listen(listen)
        taken = set()
        for listen in self.listen:
            scheme, where, port = parse_bind(listen.bind)
            unix = scheme in UNIX_SCHEMES
            place = (os.path.abspath(where) if unix else where, port)
            if place in taken:
                raise SettingsError(f"bind {listen.bind} is given twice")
            if unix or port:  # port 0 is another free one each time
                taken.add(place)
        name = self.handler.get("class", "")
        if not isinstance(name, str) or not _CLASS.fullmatch(name):
            raise SettingsError(f"handler class must be module:Class, not {values.shown(name)}")


def _check_listen(listen: Listen) -> None:
    where = f"{listen.bind}: "
    if not _is_hostname(listen.hostname):
        raise SettingsError(f"{where}hostname is no domain name: {values.shown(listen.hostname)}")
    if not listen.banner.isprintable() or not listen.banner.isascii() or len(listen.banner) > 200:
        raise SettingsError(f"{where}banner must be printable ASCII of at most 200 characters")
    _check_tls(listen, where)
    if not re.fullmatch(r"[A-Za-z0-9_.-]{0,20}", listen.priority_profile):
        raise SettingsError(f"{where}priority_profile is no name: {listen.priority_profile!r}")
    if listen.min_deliver_by > 999_999_999:
        raise SettingsError(f"{where}min_deliver_by must have nine digits at most")
    if not re.fullmatch(r"[0-7]{3,4}", listen.mode):
        raise SettingsError(f"{where}mode must be octal digits such as 0660, not {listen.mode!r}")


def _is_hostname(text: str) -> bool:
    """A domain, or an address literal (RFC 5321 4.1.3): "[192.0.2.1]", "[IPv6:2001:db8::1]"."""
    if not text.startswith("["):
        return _DOMAIN.fullmatch(text) is not None
    address = text[1:-1].removeprefix("IPv6:")
    try:
        return text.endswith("]") and ipaddress.ip_address(address).version == (4 if address == text[1:-1] else 6)
    except ValueError:
        return False


def _check_tls(listen: Listen, where: str) -> None:
    if parse_bind(listen.bind)[0] == "smtps" and not listen.certfile:
        raise SettingsError(f"{where}smtps needs a certfile")
    if parse_bind(listen.bind)[0] == "smtps" and listen.tls not in ("", "required"):
        raise SettingsError(f"{where}tls is {listen.tls!r}, but smtps has nothing else")
    if listen.tls in ("offered", "required") and not listen.certfile:
        raise SettingsError(f"{where}tls = {listen.tls!r} needs a certfile")
    if listen.keyfile and not listen.certfile:
        raise SettingsError(f"{where}keyfile without certfile")
    for name, pair in listen.certificates.items():
        if not _DOMAIN.fullmatch(name) or len(pair) not in (1, 2):
            raise SettingsError(f"{where}certificates: {name!r} must be a name with [certfile, keyfile]")


def tls_files(listen: Listen) -> list[str]:
    """The paths that a listener's TLS settings name."""
    named = [path for pair in listen.certificates.values() for path in pair]
    return [path for path in (listen.certfile, listen.keyfile, listen.client_ca, *named) if path]


def protocol_options(listen: Listen, auth_hooks: frozenset[str] = frozenset(), auth_secret: str = "") -> Options:
    """What the sessions of a listener may do, as the protocol names it. `auth_hooks`: what the handler has for AUTH."""
    scheme = parse_bind(listen.bind)[0]
    # Which has a reply for each recipient, so that its results may be mixed.
    lmtp = scheme.startswith("lmtp")
    newlines: BareNewlines
    if isinstance(listen.allow_bare_newlines, bool):
        newlines = "accept" if listen.allow_bare_newlines else "reject"
    else:
        newlines = listen.allow_bare_newlines
    return Options(
        hostname=listen.hostname,
        banner=listen.banner,
        max_message_size=listen.max_message_size,
        max_recipients=1 if listen.mixed_results == "single" and not lmtp else listen.max_recipients,
        max_recipient_overshoot=listen.max_recipient_overshoot,
        max_line_length=listen.max_line_length,
        max_content_line_length=listen.max_content_line_length,
        max_errors=listen.max_errors,
        max_idle_commands=listen.max_idle_commands,
        max_transactions=listen.max_transactions,
        allow_bare_newlines=newlines,
        lenient_addresses=listen.lenient_addresses,
        tls="never" if scheme == "smtps" else listen.tls or ("offered" if listen.certfile else "never"),
        auth=listen.auth or ("offered" if auth_hooks else "never"),
        auth_hooks=auth_hooks,
        auth_without_tls=listen.auth_without_tls,
        auth_secret=hashlib.sha256(f"gsmtp SCRAM {auth_secret}".encode()).digest(),
        scram_iterations=listen.scram_iterations,
        scram_stored_keys=listen.scram_stored_keys,
        max_auth_failures=listen.max_auth_failures,
        lmtp=lmtp,
        hide=frozenset(keyword.upper() for keyword in listen.hide),
        offer=frozenset(keyword.upper() for keyword in listen.offer),
        min_deliver_by=listen.min_deliver_by,
        priority_profile=listen.priority_profile,
    )


def parse_bind(text: str) -> tuple[str, str, int]:
    """(scheme, host, port), or (scheme, path, 0) for a unix socket. Raises SettingsError."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, separator, rest = text.partition(":/")
        rest = f"/{rest}"
        if scheme not in UNIX_SCHEMES:
            scheme, rest = "smtp", text
    if scheme in UNIX_SCHEMES:
        if not rest.startswith("/"):
            raise SettingsError(f"bind {text}: a unix socket needs an absolute path: {scheme}:/run/gsmtp.sock")
        if len(os.fsencode(os.path.abspath(rest))) > _UNIX_PATH:
            raise SettingsError(f"bind {text}: the path of a unix socket has at most {_UNIX_PATH} octets")
        return scheme, rest, 0
    if scheme not in DEFAULT_PORTS:
        schemes = "smtp://HOST:PORT, smtps://, lmtp://, smtp+unix:/PATH, lmtp+unix:/PATH"
        raise SettingsError(f"bind {text}: unknown scheme {scheme!r}; there are {schemes}")
    if not rest:
        raise SettingsError(f"bind {text!r}: HOST:PORT is wanted, such as [::]:25 or 127.0.0.1:2525")
    host, colon, port = rest.rpartition(":")
    if not colon or host.count("[") != host.count("]") or rest.endswith("]"):
        host, port = rest, str(DEFAULT_PORTS[scheme])
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not port.isdecimal() or not port.isascii() or int(port) > 65535:
        raise SettingsError(f"bind {text}: {port!r} is no port")
    if (":" in host) != bracketed or re.search(r"[\s/\[\]]", host):
        raise SettingsError(f"bind {text}: HOST:PORT is wanted, with brackets around an IPv6 address")
    if scheme == "lmtp" and int(port) == 25:
        raise SettingsError(f"bind {text}: LMTP is not for port 25 (RFC 2033 5)")
    return scheme, host, int(port)


def build(table: Mapping[str, Any], where: str = "") -> Settings:
    """The settings that a TOML document gives. Raises SettingsError, with `where` in front."""
    own: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    names = {item.name for item in dataclasses.fields(Listen)}
    own_names = {item.name for item in dataclasses.fields(Settings)}
    for key, value in table.items():
        (shared if key in names - {"bind"} else own)[key] = value
    listens = own.pop("listen", [])
    if not isinstance(listens, list) or not all(isinstance(each, dict) for each in listens):
        raise SettingsError(f"{where}listen must be tables: [[listen]]")
    handler = own.pop("handler", {})
    if not isinstance(handler, dict):
        raise SettingsError(f"{where}handler must be a table: [handler]")
    values.check_arguments(handler, f"{where}handler")
    if "bind" in own:
        raise SettingsError(f"{where}bind belongs into a [[listen]] table")
    settings = Settings(**values.checked(Settings, own, where, names), handler=handler)
    values.checked(Listen, shared, where)
    for at, each in enumerate(listens, 1):
        place = f"{where}listen {at}: "
        if "bind" not in each:
            raise SettingsError(f"{place}bind is missing")
        settings.listen.append(Listen(**values.checked(Listen, {**shared, **each}, place, own_names)))
    return settings


def parse_value(key: str, text: str) -> Any:
    """The value of a setting as the command line has it: like TOML, but a text needs no quotes."""
    for kind in (Settings, Listen):
        if key in (kinds := get_type_hints(kind)):
            return values.parse(text, kinds[key])
    return values.parse(text)


def default_hostname() -> str:
    """The machine's name."""
    return socket.gethostname() or "localhost"


def default_auth_secret() -> str:
    """What this machine has and keeps over restarts; where it has no such thing, chance."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip() or secrets.token_hex()
    except (OSError, ValueError):
        return secrets.token_hex()


def default_binds() -> Sequence[str]:
    """Port 2525 of this machine alone, by IPv4 and, where there is IPv6, by that."""
    binds = ["smtp://127.0.0.1:2525"]
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        binds.append("smtp://[::1]:2525")
    except OSError:
        pass
    return binds


def to_json(settings: Settings) -> dict[str, Any]:
    """Plain values, for the workers."""
    return dataclasses.asdict(settings)


def from_json(values: Mapping[str, Any]) -> Settings:
    """What `to_json` made."""
    return Settings(**{**values, "listen": [Listen(**each) for each in values["listen"]]})
