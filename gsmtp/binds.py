"""The URLs that say where a listener is bound: parsing, defaults, and the settings of the listening socket.

Nothing is bound here, and no name is looked up.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from typing import NamedTuple

from gsmtp.declare import SettingsError, Table, setting

# The room for a path in sockaddr_un, less the NUL at its end.
_UNIX_PATH = 107
# RFC 2033 5 forbids port 25 for LMTP and assigns none; 24 is what servers use.
_DEFAULT_PORTS = {"smtp": 25, "smtps": 465, "lmtp": 24}
_UNIX_SCHEMES = ("smtp+unix", "lmtp+unix")


def _check_mode(text: str) -> None:
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise SettingsError(f"mode must be octal digits such as 0660, not {text!r}")


class BindSettings(Table):
    """The listening socket."""

    bind: str = setting(
        "", "smtp:// smtps:// lmtp:// HOST:PORT, smtp+unix:/PATH lmtp+unix:/PATH; [::] serves IPv4 too, port 0: any"
    )
    backlog: int = setting(2048, "connections that may wait to be accepted", 1, 2**31 - 1)
    mode: str = setting("0666", "permissions of a unix socket, in octal", check=_check_mode)


class Bind(NamedTuple):
    """The parts of a bind URL. For a unix socket `host` is its path, and `port` is 0."""

    scheme: str
    host: str
    port: int

    @property
    def unix(self) -> bool:
        """Whether it is a unix socket."""
        return self.scheme in _UNIX_SCHEMES

    @property
    def lmtp(self) -> bool:
        """Whether the protocol is LMTP."""
        return self.scheme.startswith("lmtp")

    @property
    def implicit_tls(self) -> bool:
        """Whether TLS begins with the connection."""
        return self.scheme == "smtps"


def parse_bind(text: str) -> Bind:
    """Return the parts of a bind URL. The scheme defaults to smtp, the port to the scheme's. Raises SettingsError."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, separator, rest = text.partition(":/")
        rest = f"/{rest}"
        if scheme not in _UNIX_SCHEMES:
            scheme, rest = "smtp", text
    if scheme in _UNIX_SCHEMES:
        if not rest.startswith("/"):
            raise SettingsError(f"bind {text}: a unix socket needs an absolute path: {scheme}:/run/gsmtp.sock")
        if len(os.fsencode(os.path.abspath(rest))) > _UNIX_PATH:
            raise SettingsError(f"bind {text}: the path of a unix socket has at most {_UNIX_PATH} octets")
        return Bind(scheme, rest, 0)
    if scheme not in _DEFAULT_PORTS:
        schemes = "smtp://HOST:PORT, smtps://, lmtp://, smtp+unix:/PATH, lmtp+unix:/PATH"
        raise SettingsError(f"bind {text}: unknown scheme {scheme!r}; there are {schemes}")
    if not rest:
        raise SettingsError(f"bind {text!r}: HOST:PORT is wanted, such as [::]:25 or 127.0.0.1:2525")
    host, colon, port = rest.rpartition(":")
    if not colon or host.count("[") != host.count("]") or rest.endswith("]"):
        host, port = rest, str(_DEFAULT_PORTS[scheme])
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not port.isdecimal() or not port.isascii() or int(port) > 65535:
        raise SettingsError(f"bind {text}: {port!r} is no port")
    if (":" in host) != bracketed or re.search(r"[\s/\[\]]", host):
        raise SettingsError(f"bind {text}: HOST:PORT is wanted, with brackets around an IPv6 address")
    if scheme == "lmtp" and int(port) == 25:
        raise SettingsError(f"bind {text}: LMTP is not for port 25 (RFC 2033 5)")
    return Bind(scheme, host, int(port))


def default_binds() -> Sequence[str]:
    """Return the URLs of port 2525 of this machine alone, by IPv4 and, if there is IPv6, by that too."""
    binds = ["smtp://127.0.0.1:2525"]
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        binds.append("smtp://[::1]:2525")
    except OSError:
        pass
    return binds
