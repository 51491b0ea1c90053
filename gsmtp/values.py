"""Values from TOML and the command line for the fields of a dataclass; every mistake is one line.

A field's metadata has the bounds of numbers (see gsmtp.declare.setting); its type says the rest. This module must not
know which settings there are.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gsmtp.declare import SettingsError, shown

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list of texts",
    dict: "a table of lists of texts",
}


def read_file(path: str) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises SettingsError."""
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
    """Return a value from the command line.

    It is read as TOML. If it is none, or if the type `kind` takes the text and not the value, it is the text itself.
    """
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
    """Return the values of `table` for the dataclass `kind`. Raises SettingsError, with `where` in front.

    The message for an unknown key suggests a similar one, of `kind` or of `others`.
    """
    fields = {item.name: item for item in dataclasses.fields(kind)}
    kinds = types_of(kind)
    values = {}
    for key, value in table.items():
        if key not in fields:
            close = difflib.get_close_matches(key, {*fields, *others}, 1)
            suggestion = f"; did you mean {close[0]}?" if close else ""
            raise SettingsError(f"{where}unknown setting {key}{suggestion}")
        values[key] = _value(f"{where}{key}", value, kinds[key], fields[key].metadata)
    return values


def check_arguments(table: Mapping[str, Any], where: str) -> None:
    """Raise SettingsError, with `where` in front, for values that cannot be handed to another process."""
    for key, value in table.items():
        try:
            json.dumps(value)
        except TypeError:
            raise SettingsError(f"{where}: {key} must not have dates or times in it: {shown(value)}") from None
        except (ValueError, RecursionError):
            raise SettingsError(f"{where}: {key} has a number of too many digits in it") from None


def written(value: Any) -> str:
    """Return a value as text for people: lists as in TOML, a text without quotes, an empty list or table as ""."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return json.dumps(value) if value else ""
    return str(value)


@cache
def types_of(kind: type) -> Mapping[str, Any]:
    """Return the types of the fields of a dataclass, by name. They are written as text, and reading them takes time."""
    return get_type_hints(kind)


def literals(kind: Any) -> list[Any]:
    """Return the values that a type allows by Literal, without the empty text. Empty for other types."""
    return [choice for choice in _alternatives(kind)[1] if choice != ""]


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
