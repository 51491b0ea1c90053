"""gsmtp-master: settings from a file and the command line, then the master.

It runs in the master process, so it imports neither gevent nor the user's code.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from gsmtp_workers import master
from gsmtp_workers.identity import resolve_identity
from gsmtp_workers.plan import BindError, Listener, Plan, PlanError, Role, one_line
from gsmtp_workers.sharedtable import table_size

import gsmtp
from gsmtp import counters, logs, settings, values
from gsmtp.settings import Settings, SettingsError

_FACTORY = "gsmtp.server.service:create"
_DEFAULT_HANDLER = "gsmtp.handlers.maildir:Maildir"

# Settings with an option of their own.
_SHORTHANDS: tuple[str, ...] = ("workers", "hostname", "tls", "certfile", "keyfile", "user", "group")
_SHORTHANDS += ("log_file", "log_format", "log_level")

# What --set cannot say.
_ELSEWHERE = {
    "bind": "--bind URL says that",
    "listen": "--bind URL says that",
    "handler": "MODULE:CLASS says that, and --option KEY=VALUE what goes to it",
}

_EPILOG = """\
examples:
  gsmtp-master                                     store mail in ./maildir, on port 2525 of this machine
  gsmtp-master inbox:Inbox -b smtp://[::]:25       class Inbox of inbox.py gets the mail
  gsmtp-master -o path=/var/mail/{domain}/{local}  a Maildir for each address
  gsmtp-master -c gsmtp.toml --check               what is wrong with this file?

signals:  TERM  finish what is under way, then end      INT, QUIT  end now
          TTIN  one worker more                         TTOU       one worker fewer

All settings, with their defaults: gsmtp-master --settings
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 1 for wrong settings or an address that cannot be bound, 2 for a wrong
    command line, or that of a worker that could not start."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.settings:
        print(settings_text())
        return 0
    try:
        found = gather(options)
        plan = make_plan(found)
        if options.check:
            if found.log_file != "-":
                _check_log(found.log_file)
            return 1 if master.check(plan) else _say("the settings and the handler are in order")
        logs.configure(found.log_format, "master", found.log_level, _log_handler(found, plan))
        return master.run(plan)
    except (SettingsError, PlanError, BindError) as error:
        print(f"gsmtp-master: {one_line(str(error))}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gsmtp-master",
        description="Receive mail: bind, fork gevent workers, hand each message to a Python class.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("handler", nargs="?", metavar="MODULE:CLASS", help="who gets the mail; default: a Maildir in ./maildir")
    add(
        "-b",
        "--bind",
        action="append",
        metavar="URL",
        help="smtp:// smtps:// lmtp:// HOST:PORT, smtp+unix:/PATH; may be repeated; default: port 2525 of this machine",
    )
    add("-w", "--workers", type=int, metavar="N", help="worker processes; default: one for each usable core")
    add("-c", "--config", metavar="FILE", help="settings in TOML; the command line wins over it")
    add("-o", "--option", action="append", default=[], metavar="KEY=VALUE", help="for the handler; may be repeated")
    add("-s", "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting; may be repeated")
    add("--hostname", metavar="NAME", help="what the server calls itself; default: the machine's name")
    add("--tls", choices=["never", "offered", "required"], help="STARTTLS; default: offered with a certfile")
    add("--certfile", metavar="FILE", help="certificate chain in PEM")
    add("--keyfile", metavar="FILE", help="its private key, unless that is in certfile")
    add("--user", metavar="NAME", help="workers run as this user (needs root)")
    add("--group", metavar="NAME", help="and this group")
    add("--log-file", metavar="FILE", help="default: standard error")
    add("--log-format", choices=["text", "json"], help="default: text")
    add("--log-level", choices=["debug", "info", "warning", "error"], help="default: info")
    add("--check", action="store_true", help="say what is wrong with the settings or the handler, and end")
    add("--settings", action="store_true", help="list all settings, and end")
    add("--version", action="version", version=f"gsmtp {gsmtp.__version__}")
    return parser


def gather(options: argparse.Namespace) -> Settings:
    """The settings of a command line and the file it names. Raises SettingsError."""
    table: dict[str, Any] = {}
    if options.config is not None:
        table = values.read_file(options.config)
        settings.build(table, f"{options.config}: ")
    for text in options.set:
        key, value = _pair("--set", text)
        if key in _ELSEWHERE:
            raise SettingsError(f"--set {text}: {_ELSEWHERE[key]}")
        table[key] = settings.parse_value(key, value)
        _drop_from_listeners(table, key)
    for key in _SHORTHANDS:
        value = getattr(options, key)
        if value is not None:
            table[key] = value
            _drop_from_listeners(table, key)
    if options.bind:
        table["listen"] = [{"bind": bind} for bind in options.bind]
    handler = dict(table.get("handler", {}))
    if options.handler is not None:
        # The file's options are for the file's class.
        handler = {"class": options.handler} if handler.get("class") != options.handler else handler
    handler.setdefault("class", _DEFAULT_HANDLER)
    for text in options.option:
        key, value = _pair("--option", text)
        if not key.isidentifier() or key == "class":
            raise SettingsError(f"--option {text}: {key!r} cannot be an argument's name")
        handler[key] = value
    table["handler"] = handler
    if not table.get("listen"):
        table["listen"] = [{"bind": bind} for bind in settings.default_binds()]
    found = settings.build(table)
    for listen in found.listen:
        listen.hostname = listen.hostname or settings.default_hostname()
    if found.log_file != "-":  # workers may have another directory
        found.log_file = os.path.abspath(found.log_file)
    found.auth_secret = found.auth_secret or settings.default_auth_secret()
    found.check()
    return found


def _drop_from_listeners(table: dict[str, Any], key: str) -> None:
    """The command line wins over what the file says for each listener."""
    table["listen"] = [{k: v for k, v in each.items() if k != key} for each in table.get("listen", [])]


def _pair(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SettingsError(f"{option} {text}: KEY=VALUE is wanted")
    return key, value


def make_plan(found: Settings) -> Plan:
    """What the master is to do. Raises PlanError, SettingsError."""
    listeners = []
    for listen in found.listen:
        scheme, where, port = settings.parse_bind(listen.bind)
        unix = scheme in settings.UNIX_SCHEMES
        farewell = f"421 4.3.2 {listen.hostname} Service shutting down, try again\r\n".encode()
        busy = f"421 4.3.2 {listen.hostname} Too many connections, try again later\r\n".encode()
        listeners.append(
            Listener(
                name=listen.bind,
                host="" if unix else where,
                port=port,
                path=where if unix else "",
                mode=int(listen.mode, 8),
                backlog=listen.backlog,
                farewell=farewell,
                busy=busy,
            )
        )
    role = Role(_FACTORY, settings.to_json(found), tuple(listeners))
    if found.workers:
        role = dataclasses.replace(role, processes=found.workers)
    return Plan(
        roles=(role,),
        counters=counters.COLUMNS,
        shared_memory=table_size(role.size, found.limit_entries),
        files=tuple(dict.fromkeys(path for listen in found.listen for path in settings.tls_files(listen))),
        max_sessions=found.max_sessions,
        drain_timeout=found.drain_timeout,
        user=found.user,
        group=found.group,
        chdir=found.chdir,
        title="gsmtp",
    )


def _log_handler(found: Settings, plan: Plan) -> logging.Handler | None:
    if found.log_file == "-":
        return None
    identity = resolve_identity(plan)
    try:
        handler = logging.FileHandler(found.log_file)
        if identity is not None:  # the workers open it as who they become
            os.chown(found.log_file, identity.uid, identity.gid)
        return handler
    except OSError as error:
        raise SettingsError(f"log_file {found.log_file}: {error.strerror}") from None


def _check_log(path: str) -> None:
    """Raise SettingsError when the file cannot be opened, without making it."""
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        found = path if os.path.lexists(path) else os.path.join(os.path.dirname(path), "")
        os.stat(found)
        if not os.access(found, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SettingsError(f"log_file {path}: {error.strerror}") from None


def _say(text: str) -> int:
    print(text)
    return 0


def settings_text() -> str:
    """All settings, with defaults and meaning."""
    rows = []
    for kind in (Settings, settings.Listen):
        title = "for the server" if kind is Settings else "for a listener: in its [[listen]] table, or for all outside"
        rows.append(f"{title}\n")
        for item in dataclasses.fields(kind):
            default = item.default
            if default is dataclasses.MISSING or default == "" or (item.name == "workers"):
                shown = ""
            else:
                shown = f" = {str(default).lower() if isinstance(default, bool) else default}"
            rows.append(f"  {item.name}{shown}\n      {item.metadata['help']}")
        rows.append("")
    return "\n".join(rows).rstrip()


if __name__ == "__main__":
    sys.exit(main())
