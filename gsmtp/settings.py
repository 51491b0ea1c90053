"""The tables of a server and of its listeners, composed of what each room declares.

`Settings` and `ListenerSettings` have the fields that a TOML file and the command line give values for. Their bases
declare them, each beside the code that reads it; a room gets its part by `pick`. A listener's setting
outside a [[listen]] table counts for all listeners. Only values are looked at here; nothing is bound, imported or
opened.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import socket
from collections.abc import Mapping
from functools import cache
from typing import Any

from gsmtp import values
from gsmtp.binds import BindSettings, parse_bind
from gsmtp.declare import SettingsError, Table, default, setting, shown
from gsmtp.logs import LogSettings
from gsmtp.net.tls_settings import TlsSettings
from gsmtp.protocol.server.options import Options, ProtocolSettings, is_domain
from gsmtp.server.settings import AdmissionSettings, RateLimits, ServiceSettings, SpoolSettings, Timeouts

__all__ = ["ListenerSettings", "ProcessSettings", "Settings", "SettingsError"]

_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


# A table has the fields of its last base first, so the bases stand in the reverse order of the documentation.
class ListenerSettings(Timeouts, RateLimits, AdmissionSettings, TlsSettings, ProtocolSettings, BindSettings):
    """One listener and its sessions."""

    def check(self) -> None:
        """Raise SettingsError for what type and bounds do not tell."""
        parse_bind(self.bind)
        try:
            self.check_values()
            self._check_tls()
        except SettingsError as error:
            raise SettingsError(f"{self.bind}: {error}") from None

    def _check_tls(self) -> None:
        implicit = parse_bind(self.bind).implicit_tls
        if implicit and not self.certfile:
            raise SettingsError("smtps needs a certfile")
        if implicit and self.tls not in ("", "required"):
            raise SettingsError(f"tls is {self.tls!r}, but smtps has nothing else")
        if self.tls in ("offered", "required") and not self.certfile:
            raise SettingsError(f"tls = {self.tls!r} needs a certfile")
        if self.keyfile and not self.certfile:
            raise SettingsError("keyfile without certfile")
        for name, pair in self.certificates.items():
            if not is_domain(name) or len(pair) not in (1, 2):
                raise SettingsError(f"certificates: {name!r} must be a name with [certfile, keyfile]")


class ProcessSettings(Table):
    """The worker processes. gsmtp.launch makes the master's plan of them; the names are those of the plan."""

    workers: int = setting(0, "worker processes; default: one for each usable core", most=1000)
    user: str = setting("", "workers run as this user (needs root)")
    group: str = setting("", "workers run as this group (needs root)")
    chdir: str = setting("", "directory of the workers, and the first place where the handler's module is looked for")
    max_sessions: int = setting(10_000, "connections per worker; further ones wait", 1)
    drain_timeout: float = setting(660.0, "seconds from TERM until a worker ends even if sessions are left", 1)


class Settings(LogSettings, SpoolSettings, ServiceSettings, ProcessSettings):
    """The whole server."""

    handler: dict[str, Any] = setting({}, "class = module:Class; the other keys go to its constructor")
    listen: list[ListenerSettings] = setting([], "the listeners, one table each")

    def check(self) -> None:
        """Raise SettingsError for what no single value shows."""
        if not self.listen:
            raise SettingsError("nothing to listen on")
        for listener in self.listen:
            listener.check()
        taken = set()
        for listener in self.listen:
            bind = parse_bind(listener.bind)
            place = (os.path.abspath(bind.host) if bind.unix else bind.host, bind.port)
            if place in taken:
                raise SettingsError(f"bind {listener.bind} is given twice")
            if bind.unix or bind.port:  # port 0 is another free one each time
                taken.add(place)
        name = self.handler.get("class", "")
        if not isinstance(name, str) or not _CLASS.fullmatch(name):
            raise SettingsError(f"handler class must be module:Class, not {shown(name)}")


# The kinds of tables, with a title for the list of all settings.
_TABLES = {
    Settings: "for the server",
    ListenerSettings: "for a listener: in its [[listen]] table, or for all outside",
}


def protocol_options(
    listener: ListenerSettings, auth_hooks: frozenset[str] = frozenset(), auth_secret: str = ""
) -> Options:
    """Return what the sessions of a listener may do.

    `auth_hooks` are the names of the hooks that the handler has for AUTH. Without `tls` STARTTLS is offered if there
    is a certfile. Raises SettingsError if the bind URL is wrong.
    """
    bind = parse_bind(listener.bind)
    return Options.of(
        listener,
        default_tls="offered" if listener.certfile else "never",
        implicit_tls=bind.implicit_tls,
        lmtp=bind.lmtp,
        auth_hooks=auth_hooks,
        auth_secret=auth_secret,
    )


def build(table: Mapping[str, Any], where: str = "") -> Settings:
    """Return the settings that a TOML document gives. Raises SettingsError, with `where` in front."""
    own: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    names = {item.name for item in dataclasses.fields(ListenerSettings)}
    own_names = {item.name for item in dataclasses.fields(Settings)}
    for key, value in table.items():
        (shared if key in names - {"bind"} else own)[key] = value
    tables = own.pop("listen", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise SettingsError(f"{where}listen must be tables: [[listen]]")
    handler = own.pop("handler", {})
    if not isinstance(handler, dict):
        raise SettingsError(f"{where}handler must be a table: [handler]")
    values.check_arguments(handler, f"{where}handler")
    if "bind" in own:
        raise SettingsError(f"{where}bind belongs into a [[listen]] table")
    checked = values.checked(Settings, own, where, names)
    values.checked(ListenerSettings, shared, where)
    listeners = []
    for at, each in enumerate(tables, 1):
        place = f"{where}listen {at}: "
        if "bind" not in each:
            raise SettingsError(f"{place}bind is missing")
        listeners.append(ListenerSettings(**values.checked(ListenerSettings, {**shared, **each}, place, own_names)))
    return Settings(**checked, handler=handler, listen=listeners)


def with_defaults(settings: Settings) -> Settings:
    """Return the settings with the defaults that depend on the machine.

    These are `hostname`, `auth_secret`, and an absolute path for `log_file`, because workers may have another
    directory.
    """
    name = socket.gethostname() or "localhost"
    return settings.replace(
        listen=[each.replace(hostname=each.hostname or name) for each in settings.listen],
        log_file=settings.log_file if settings.log_file == "-" else os.path.abspath(settings.log_file),
        auth_secret=settings.auth_secret or _machine_secret(),
    )


def _machine_secret() -> str:
    """Return a text that this machine keeps over restarts, or a random one if it has none."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip() or secrets.token_hex()
    except (OSError, ValueError):
        return secrets.token_hex()


def parse_value(key: str, text: str) -> Any:
    """Return the value of a setting from the command line. It is written as in TOML, but a text needs no quotes."""
    return values.parse(text, declared()[key][1] if key in declared() else None)


@cache
def declared() -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Return the declaration and the type of each setting, by name."""
    found = {}
    for table in _TABLES:
        kinds = values.types_of(table)
        found.update({item.name: (item, kinds[item.name]) for item in dataclasses.fields(table)})
    return found


def describe() -> str:
    """Return a list of all settings, with defaults and help. Defaults that are empty or depend are not shown."""
    rows = []
    for table, title in _TABLES.items():
        rows.append(f"{title}\n")
        for item in dataclasses.fields(table):
            value = "" if item.name == "workers" else values.written(default(item))
            rows.append(f"  {item.name}{value and f' = {value}'}\n      {item.metadata['help']}")
        rows.append("")
    return "\n".join(rows).rstrip()


def to_json(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain values, for the workers."""
    return dataclasses.asdict(settings)


def from_json(plain: Mapping[str, Any]) -> Settings:
    """Return the settings that `to_json` was given."""
    return Settings(**{**plain, "listen": [ListenerSettings(**each) for each in plain["listen"]]})
