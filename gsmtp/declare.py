"""Declares settings: fields of a dataclass that have a default, a help text, bounds and a check.

Each room declares the settings that it reads, in a dataclass of its own; gsmtp.settings composes the tables of a server
and of a listener from these. So a setting's name, type, default, help and bounds are written once.

This module must not know which settings there are. Every room may import it, the protocol too, so it imports nothing
that is heavy or does I/O. Weak: the composed dataclasses share one namespace, because the tables are flat in TOML; two
rooms cannot have settings of the same name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _Kind = TypeVar("_Kind", bound=DataclassInstance)

# A year. Timers take up to some hundred years, but a longer time than this is a mistake.
MOST_SECONDS = 31_536_000.0
# The largest number up to which a float can represent every whole number.
MOST = 2**53
_SHOWN = 60


class SettingsError(ValueError):
    """A setting is wrong. The message is one line for the user."""


def setting(
    default: Any,
    help: str,
    least: float | None = 0,
    most: float | None = None,
    check: Callable[[Any], None] | None = None,
) -> Any:
    """Return a dataclass field that is a setting.

    A number must be between `least` and `most`; `most` defaults to MOST_SECONDS for floats and to MOST for others.
    `check` takes the value once all defaults are known; it raises SettingsError, with the setting's name in the
    message, for what type and bounds cannot tell.
    """
    if most is None:
        most = MOST_SECONDS if isinstance(default, float) else MOST
    metadata = {"help": help, "least": least, "most": most, "check": check}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def default(item: dataclasses.Field[Any]) -> Any:
    """Return the default of a setting."""
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def check_values(settings: DataclassInstance) -> None:
    """Call the check of each setting that has one. Raises SettingsError."""
    for item in dataclasses.fields(settings):
        if item.metadata["check"] is not None:
            item.metadata["check"](getattr(settings, item.name))


def pick(kind: type[_Kind], settings: DataclassInstance) -> _Kind:
    """Return the settings that the dataclass `kind` declares, taken from a dataclass that is composed of it."""
    return kind(**{item.name: getattr(settings, item.name) for item in dataclasses.fields(kind)})


def shown(value: object) -> str:
    """Return the repr of a value for a message, cut if it is long."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
