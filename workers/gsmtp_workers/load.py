"""Imports an object that the user has named, and says in one line why that fails.

Promises: for a name that does not exist, a syntax error and an import that finds no module, the message of the
`BootError` is one line. Other exceptions of the user's code pass, because their traceback is what helps.
"""

from __future__ import annotations

import importlib
import traceback
from typing import Any

from gsmtp_workers.plan import BootError


def load(name: str) -> Any:
    """Return the object called "package.module:attribute"; both parts may have dots.

    Raises BootError when there is no such object, and whatever else the import of the module raises.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise BootError(f"cannot load {name}: not of the form module:attribute")
    try:
        found: Any = importlib.import_module(module_name)
    except SyntaxError as error:
        # The error of a NUL in the source names no place.
        place = f"{error.filename}, line {error.lineno}: " if error.filename else f"module {module_name}: "
        raise BootError(f"cannot load {name}: {place}{error.msg}") from error
    except ImportError as error:
        raise BootError(f"cannot load {name}: {error}{_where(error, module_name)}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise BootError(f"cannot load {name}: module {module_name} has no {path}") from None
    return found


def _where(error: ImportError, module_name: str) -> str:
    """Return the place of the import that failed, in parentheses; "" when the named module itself is missing."""
    if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
        return ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen ")]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
