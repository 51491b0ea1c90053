"""Dates of mails, as they are written and as they should be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from gsmtp import mime


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mon, 02 Jan 2006 15:04:05 -0700", "2006-01-02T15:04:05-07:00"),
        ("2 Jan 2006 15:04 +0530", "2006-01-02T15:04:00+05:30"),
        ("Mon, 2 Jan 06 15:04:05 EST", "2006-01-02T15:04:05-05:00"),
        ("Mon, 2 Jan 99 15:04:05 GMT", "1999-01-02T15:04:05+00:00"),
        ("Mon, 2 Jan 2006 15:04:05 -0330 (Newfoundland)", "2006-01-02T15:04:05-03:30"),
        ("Mon, 2 Jan 2006 23:59:60 -0000", "2006-01-02T23:59:59+00:00"),
        ("Mon, 2 Jan 106 15:04:05 GMT", "2006-01-02T15:04:05+00:00"),
        ("Mon, 2 Jan 0006 15:04:05 GMT", "2006-01-02T15:04:05+00:00"),
        ("Mon,\t 2 January 2006  15.04.05 Z", "2006-01-02T15:04:05+00:00"),
        ("Mon Jan  2 15:04:05 2006", "2006-01-02T15:04:05+00:00"),
        ("2006-01-02T15:04:05+01:00", "2006-01-02T15:04:05+01:00"),
        ("Mon, 2 Jan 2006 15:04:05 +9999", "2006-01-02T15:04:05+00:00"),
        ("Mon, 32 Jan 2006 15:04:05 +0000", None),
        ("Mon, 2 Foo 2006 15:04:05 +0000", None),
        ("tomorrow", None),
        ("", None),
    ],
)
def test_parse_date(text: str, expected: str | None) -> None:
    found = mime.parse_date(text)
    assert (found and found.isoformat()) == expected


@pytest.mark.parametrize("minutes", [0, 330, -330, -210, 345, 765, -30, 30])
def test_zones_of_half_and_quarter_hours(minutes: int) -> None:
    when = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(minutes=minutes)))
    text = mime.format_date(when)
    assert text.startswith("Tue, 02 Jan 2024 03:04:05 ") and mime.parse_date(text) == when
    sign = "-" if minutes < 0 else "+"
    assert text.endswith(f"{sign}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}")


def test_format_date_of_naive_and_ancient_times() -> None:
    assert mime.format_date(datetime(2024, 1, 2, 3, 4, 5)).endswith(" -0000")
    with pytest.raises(ValueError):
        mime.format_date(datetime(1899, 1, 1, tzinfo=UTC))
