"""Import an object that the user named, and say in one line why that fails.

Promises: a name that leads nowhere, a file with a syntax error and an import that finds no module become a
`BootError` of one line; any other exception of the user's code passes, for its traceback is what helps.
"""

from __future__ import annotations

import importlib
import traceback
from typing import Any

from gsmtp_workers.plan import BootError


def load(name: str) -> Any:
    """The object called "package.module:attribute" (dots allowed in both). Raises BootError."""
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise BootError(f"cannot load {name}: not of the form module:attribute")
    try:
        found: Any = importlib.import_module(module_name)
    except SyntaxError as error:
        # A NUL in the source has no place.
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
    if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
        return ""  # it is the module itself that is missing
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen ")]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
