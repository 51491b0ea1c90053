"""Makes the handler object that the settings name; every mistake in the user's code becomes one line.

The traceback is logged at level debug: "gsmtp-master --log-level debug" shows it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from gsmtp_workers.load import load
from gsmtp_workers.plan import BootError

from gsmtp.handler import Worker
from gsmtp.server.hooks import HandlerError, Hooks

logger = logging.getLogger("gsmtp.handler")


def load_hooks(handler: Mapping[str, Any], new_id: Callable[[], str]) -> Hooks:
    """`handler`: "class" and the constructor's arguments. Raises BootError."""
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
    """Call on_start. Raises BootError."""
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
