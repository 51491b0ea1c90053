"""Loads the user's handler: its class, its object, its hooks and its extensions.

A mistake in the user's code becomes a BootError of one line. Its traceback is logged at level debug, which
"gsmtp-master --log-level debug" shows.
"""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from gsmtp_workers.load import load
from gsmtp_workers.plan import BootError

from gsmtp.handler import Worker
from gsmtp.protocol.parameters import ParameterError
from gsmtp.protocol.server.extensions import Extension, Parser
from gsmtp.protocol.server.options import Options
from gsmtp.server.hooks import HandlerError, Hooks

logger = logging.getLogger("gsmtp.handler")


def load_hooks(handler: Mapping[str, Any], new_id: Callable[[], str]) -> Hooks:
    """Load the class that `handler["class"]` names, make an object of it, and return its hooks.

    The other items of `handler` are the constructor's arguments. `new_id` returns the references of failures. Raises
    BootError.
    """
    name = handler["class"]
    arguments = {key: value for key, value in handler.items() if key != "class"}
    try:
        kind = load(name)
    except BootError:
        raise
    except BaseException as error:
        raise _failed(f"cannot load {name}", error) from error
    if not isinstance(kind, type):
        raise BootError(f"cannot load {name}: not a class")
    try:
        made = kind(**arguments)
    except BaseException as error:
        raise _failed(f"cannot make a {name}", error) from error
    try:
        return Hooks(made, new_id)
    except HandlerError as error:
        raise BootError(f"cannot use {name}: {error}") from None


def start(hooks: Hooks, worker: Worker) -> None:
    """Call on_start with the worker, if the handler has it. Raises BootError if it fails."""
    if hooks.on_start is not None:
        try:
            hooks.on_start(worker)
        except BaseException as error:
            raise _failed(f"on_start of {type(hooks.handler).__name__} failed", error) from error


def _failed(what: str, error: BaseException) -> BootError:
    logger.debug(what, exc_info=error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    place = ""
    if len(frames) > 1 and not isinstance(error, TypeError | ValueError | OSError):
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})"
    try:
        text = str(error)
    except Exception:  # the user's code as well
        text = "its text cannot be had"
    return BootError(f"{what}: {type(error).__name__}{': ' if text else ''}{text}{place}")


def claimed_extensions(hooks: Hooks) -> list[Extension | str]:
    """Return the extensions and keywords that the handler's `extensions` names.

    An exception of an extension's parser becomes the reply that one of a hook becomes. Raises ValueError if
    `extensions` is no tuple or list of these.
    """
    claimed = getattr(hooks.handler, "extensions", ())
    if not isinstance(claimed, tuple | list) or not all(isinstance(each, Extension | str) for each in claimed):
        raise ValueError(f"{type(hooks.handler).__name__}.extensions must be a tuple of Extension and keywords")
    return [each if isinstance(each, str) else _guarded(each, hooks) for each in claimed]


def _guarded(extension: Extension, hooks: Hooks) -> Extension:
    """Return the extension with parsers whose failure is a 451 with a reference, not the end of the session."""

    def guard(name: str, parser: Parser) -> Parser:
        def parse(value: str | None, options: Options) -> Any:
            try:
                return parser(value, options)
            except ParameterError:
                raise
            except Exception as error:
                reply = hooks.failure(f"parameter {name}", "", error)
                raise ParameterError(reply.code, reply.enhanced, reply.text) from None

        return parse

    mail = {name: guard(name, parser) for name, parser in extension.mail.items()}
    rcpt = {name: guard(name, parser) for name, parser in extension.rcpt.items()}
    return dataclasses.replace(extension, mail=mail, rcpt=rcpt)
