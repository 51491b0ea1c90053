"""gsmtp-master: the command line.

It runs in the master process, so it must import neither gevent nor the user's code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from gsmtp_workers.plan import BindError, PlanError, one_line

import gsmtp
from gsmtp import declare, launch, settings, values
from gsmtp.binds import default_binds
from gsmtp.settings import Settings, SettingsError

_DEFAULT_HANDLER = "gsmtp.handlers.maildir:Maildir"

# The settings that have an option of their own: how it is written, and the name of its value in the help.
_OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "workers": (("-w", "--workers"), "N"),
    "hostname": (("--hostname",), "NAME"),
    "tls": (("--tls",), ""),
    "certfile": (("--certfile",), "FILE"),
    "keyfile": (("--keyfile",), "FILE"),
    "user": (("--user",), "NAME"),
    "group": (("--group",), "NAME"),
    "log_file": (("--log-file",), "FILE"),
    "log_format": (("--log-format",), ""),
    "log_level": (("--log-level",), ""),
}

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
    """Run the command, and return the exit status.

    It is 0, 1 for wrong settings or an address that cannot be bound, 2 for a wrong command line, or that of a worker
    that could not start. `arguments` defaults to those of the process.
    """
    options = _parser().parse_args(arguments)
    if options.settings:
        print(settings.describe())
        return 0
    try:
        found = gather(options)
        if not options.check:
            return launch.run(found)
        if not launch.check(found):
            return 1
        print("the settings and the handler are in order")
        return 0
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
    binds = f"{_help('bind')}; may be repeated; default: port 2525 of this machine"
    add("-b", "--bind", action="append", metavar="URL", help=binds)
    add("-c", "--config", metavar="FILE", help="settings in TOML; the command line wins over it")
    add("-o", "--option", action="append", default=[], metavar="KEY=VALUE", help="for the handler; may be repeated")
    add("-s", "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting; may be repeated")
    for name, (flags, metavar) in _OPTIONS.items():
        _, kind = settings.declared()[name]
        if choices := values.literals(kind):
            add(*flags, choices=choices, help=_help(name))
        else:
            add(*flags, type=kind, metavar=metavar, help=_help(name))
    add("--check", action="store_true", help="say what is wrong with the settings or the handler, and end")
    add("--settings", action="store_true", help="list all settings, and end")
    add("--version", action="version", version=f"gsmtp {gsmtp.__version__}")
    return parser


def _help(name: str) -> str:
    """Return the help of a setting, with its default if that is a word and the help does not speak of one."""
    item, _ = settings.declared()[name]
    text, default = str(item.metadata["help"]), declare.default(item)
    return f"{text}; default: {default}" if isinstance(default, str) and default.isalpha() else text


def gather(options: argparse.Namespace) -> Settings:
    """Return the settings of a command line and of the file that it names. Raises SettingsError."""
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
    for key in _OPTIONS:
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
        table["listen"] = [{"bind": bind} for bind in default_binds()]
    found = settings.with_defaults(settings.build(table))
    found.check()
    return found


def _drop_from_listeners(table: dict[str, Any], key: str) -> None:
    """Remove what the file says for each listener, because the command line wins over it."""
    table["listen"] = [{k: v for k, v in each.items() if k != key} for each in table.get("listen", [])]


def _pair(option: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SettingsError(f"{option} {text}: KEY=VALUE is wanted")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
