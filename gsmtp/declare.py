"""Declares settings: a name, a type, a default, a help text, bounds and a check, written once.

Each room declares the settings that it reads in a subclass of `Table`; gsmtp.settings composes the tables of a server
and of a listener from these by inheritance, and a room gets its part by `pick`. For example::

    class Timeouts(Table):
        hook_timeout: float = setting(60.0, "seconds for a hook of the handler", 0.1)

This module must not know which settings there are. Every room may import it, the protocol too, so it imports nothing
that is heavy or does I/O. Weak: the composed tables are one namespace, because they are flat in TOML; two rooms cannot
have settings of the same name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self, dataclass_transform

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
    """Return a field of a `Table`.

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


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Table:
    """A base class whose subclasses are frozen dataclasses with keyword arguments.

    Their methods stand here once. `dataclass` would write them for each subclass, which takes a millisecond for a
    large one, each time that a master or a worker starts. Raises TypeError for a keyword that is no field, and
    dataclasses.FrozenInstanceError for an assignment.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(init=False, repr=False, eq=False)(cls)

    def __init__(self, **values: Any) -> None:
        for item in dataclasses.fields(self):
            value = values.pop(item.name) if item.name in values else default(item)
            object.__setattr__(self, item.name, value)
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to {name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    @classmethod
    def pick(cls, composed: Table) -> Self:
        """Return the part of `composed` that this class declares. Raises AttributeError if `composed` has it not."""
        return cls(**{item.name: getattr(composed, item.name) for item in dataclasses.fields(cls)})

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values for some fields. Raises TypeError for a name that is no field."""
        return type(self)(**{**vars(self), **changes})

    def check_values(self) -> None:
        """Call the check of each setting that has one. Raises SettingsError."""
        for item in dataclasses.fields(self):
            check = item.metadata.get("check")
            if check is not None:
                check(getattr(self, item.name))


def default(item: dataclasses.Field[Any]) -> Any:
    """Return the default of a setting."""
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def shown(value: object) -> str:
    """Return the repr of a value for a message, cut if it is long."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
