"""The declaration of a scoreboard's columns: name, kind and help, each written once.

Promises: importing it is light, so the master, the workers and a reader of the scoreboard share one declaration. A
service declares its columns as a class of counters (`gauge`, `counter`, `columns_of`), increments the attributes of an
object of that class, and copies them to its row with `publish`. Must not know: where the numbers are kept. Weak: every
number is a double, so a count is exact up to 2**53 only.
"""

from __future__ import annotations

from dataclasses import field, fields
from enum import StrEnum
from typing import Any, NamedTuple

_META = "gsmtp_workers.column"


class Kind(StrEnum):
    """How the values of a column are added up: the two words have the meaning that Prometheus gives them."""

    COUNTER = "counter"
    """A total that only grows. The total of a worker that has ended stays in the sum."""
    GAUGE = "gauge"
    """A present value. It ends with its worker."""


class Column(NamedTuple):
    """One number of a worker on the scoreboard: its name, its kind, and one line of help for people."""

    name: str
    kind: Kind
    help: str


def counter(help: str) -> Any:
    """Declare a field of a class of counters as a total that only grows; it starts at 0."""
    return field(default=0, metadata={_META: (Kind.COUNTER, help)})


def gauge(help: str) -> Any:
    """Declare a field of a class of counters as a present value; it starts at 0."""
    return field(default=0, metadata={_META: (Kind.GAUGE, help)})


def columns_of(counters: type) -> tuple[Column, ...]:
    """Return the columns that a dataclass declares with `counter` and `gauge`, in its order."""
    return tuple(Column(item.name, *item.metadata[_META]) for item in fields(counters) if _META in item.metadata)


def publish(counters: object, columns: tuple[Column, ...], cells: memoryview[float]) -> None:
    """Copy the values of `counters` to the cells of its `columns`."""
    for at, column in enumerate(columns):
        cells[at] = getattr(counters, column.name)
