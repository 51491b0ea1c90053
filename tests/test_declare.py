"""gsmtp/declare.py: tables of settings."""

from __future__ import annotations

import dataclasses

import pytest

from gsmtp.declare import SettingsError, Table, default, setting, shown


def _check_name(name: str) -> None:
    if not name:
        raise SettingsError("name is empty")


class Names(Table):
    name: str = setting("x", "a name", check=_check_name)
    others: list[str] = setting([], "other names")


class Times(Table):
    wait: float = setting(1.5, "seconds", 0.1)
    count: int = setting(3, "a number", most=9)


class Both(Times, Names):
    """Composed of the two."""

    more: int = 0


def test_fields_are_in_the_order_of_the_bases_from_the_last() -> None:
    assert [item.name for item in dataclasses.fields(Both)] == ["name", "others", "wait", "count", "more"]


def test_a_field_has_what_was_declared() -> None:
    wait, count = dataclasses.fields(Times)
    assert (wait.metadata["help"], wait.metadata["least"], wait.metadata["most"]) == ("seconds", 0.1, 31_536_000.0)
    assert (count.metadata["least"], count.metadata["most"]) == (0, 9)
    assert [default(item) for item in dataclasses.fields(Both)] == ["x", [], 1.5, 3, 0]


def test_tables_do_not_share_a_default() -> None:
    one, other = Names(), Names()
    one.others.append("y")
    assert (other.others, Names().others) == ([], [])


def test_a_table_cannot_be_changed() -> None:
    table = Both(count=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.count = 5  # type: ignore[misc]
    assert table.replace(count=5).count == 5
    assert table.count == 4


def test_names_that_are_no_fields() -> None:
    with pytest.raises(TypeError, match="Times has no nonesuch"):
        Times(nonesuch=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Times has no nonesuch"):
        Times().replace(nonesuch=1)


def test_a_room_gets_its_part() -> None:
    part = Times.pick(Both(wait=2.0, name="y"))
    assert type(part) is Times
    assert part == Times(wait=2.0)
    assert not hasattr(part, "name")
    with pytest.raises(AttributeError):
        Names.pick(Times())


def test_equality() -> None:
    assert Both(count=4) == Both(count=4) != Both()
    assert Times() != Names()


def test_checks() -> None:
    Both().check_values()
    with pytest.raises(SettingsError, match="name is empty"):
        Both(name="").check_values()


def test_long_values_are_cut() -> None:
    assert shown("x" * 60) == f"'{'x' * 59}..."
    assert shown(10**5000) == "a number of too many digits"
    assert shown([1]) == "[1]"
