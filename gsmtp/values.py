"""Values from TOML and the command line for the fields of a dataclass; every mistake is one line.

A field says in its metadata what numbers it takes ("least", "most"); its type says the rest. It must not know: what
settings there are.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Timers take no more than some hundred years, and nobody means that: a year.
MOST_SECONDS = 31_536_000.0
# Up to here every number is itself as a float too, and none needs more.
MOST = 2**53
_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list of texts",
    dict: "a table of lists of texts",
}
_SHOWN = 60


class SettingsError(ValueError):
    """A setting is wrong; the message is one line for the user."""


def setting(default: Any, help: str, least: float | None = 0, most: float | None = None) -> Any:
    """A field; `least` and `most` are the numbers allowed, the latter MOST or, for floats, MOST_SECONDS by default."""
    if most is None:
        most = MOST_SECONDS if isinstance(default, float) else MOST
    metadata = {"help": help, "least": least, "most": most}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_file(path: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises SettingsError."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except RecursionError:
        raise SettingsError(f"{path}: too many brackets within one another") from None
    except ValueError as error:  # also what int() says to numbers of thousands of digits
        raise SettingsError(f"{path}: {error}") from None


def parse(text: str, kind: Any = None) -> Any:
    """A value from the command line: as TOML has it, or else, or where `kind` wants it so, the text itself."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    if len(document) != 1:
        return text
    value = document["value"]
    wanted, choices = _alternatives(kind) if kind is not None else ([], [])
    if type(value) not in wanted and (text in choices or (str in wanted and not isinstance(value, str))):
        return text
    return value


def checked(kind: type, table: Mapping[str, Any], where: str, others: Iterable[str] = ()) -> dict[str, Any]:
    """The values of `table` for the dataclass `kind`. Raises SettingsError, with `where` in front.

    `others`: what else a misspelt key may have been meant for.
    """
    fields = {item.name: item for item in dataclasses.fields(kind)}
    kinds = get_type_hints(kind)
    values = {}
    for key, value in table.items():
        if key not in fields:
            close = difflib.get_close_matches(key, {*fields, *others}, 1)
            suggestion = f"; did you mean {close[0]}?" if close else ""
            raise SettingsError(f"{where}unknown setting {key}{suggestion}")
        values[key] = _value(f"{where}{key}", value, kinds[key], fields[key].metadata)
    return values


def check_arguments(table: Mapping[str, Any], where: str) -> None:
    """Raise SettingsError for what cannot be handed to another process."""
    for key, value in table.items():
        try:
            json.dumps(value)
        except TypeError:
            raise SettingsError(f"{where}: {key} must not have dates or times in it: {shown(value)}") from None
        except (ValueError, RecursionError):
            raise SettingsError(f"{where}: {key} has a number of too many digits in it") from None


def shown(value: object) -> str:
    """A value for a message: its repr, cut where that is long."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _alternatives(kind: Any) -> tuple[list[type], list[Any]]:
    choices: list[Any] = []
    wanted: list[type] = []
    for part in get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,):
        if get_origin(part) is Literal:
            choices.extend(get_args(part))
        else:
            wanted.append(get_origin(part) or part)
    return wanted, choices


def _value(name: str, value: Any, kind: Any, bounds: Mapping[str, Any]) -> Any:
    wanted, choices = _alternatives(kind)
    if value in choices and not isinstance(value, bool):
        return value
    if not (_fits(value, wanted) or (float in wanted and type(value) is int)):
        options = [_NAMES.get(each, each.__name__) for each in wanted] + [repr(choice) for choice in choices]
        raise SettingsError(f"{name} must be {' or '.join(options)}, not {shown(value)}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value == math.inf:
            raise SettingsError(f"{name} must be finite")
        if not value >= bounds["least"]:
            raise SettingsError(f"{name} must be at least {bounds['least']}, not {shown(value)}")
        if value > bounds["most"]:
            raise SettingsError(f"{name} must be at most {bounds['most']}, not {shown(value)}")
        return float(value) if float in wanted else value
    if isinstance(value, str) and "\0" in value:
        raise SettingsError(f"{name} must not hold NUL")
    return value


def _fits(value: Any, wanted: list[type]) -> bool:
    if type(value) not in wanted:
        return False
    if isinstance(value, dict):
        return all(_fits(each, [list]) for each in value.values())
    return not isinstance(value, list) or all(isinstance(each, str) and "\0" not in each for each in value)
