"""Dates of mail (RFC 5322 3.3 and 4.3), read as senders write them and written by the standard library."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}
_MINUTE = timedelta(minutes=1)
# RFC 5322 4.3: obs-zone; other names, the military letters among them, mean nothing reliable and are read as
# UTC.
_ZONES = {"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}

_TIME = r"([0-9]{1,2})[:.]([0-9]{2})(?:[:.]([0-9]{1,2}))?(?:[.,][0-9]{1,9})?"
_ZONE = r"(?:[ \t]*(?:GMT|UTC?|UT)?([+-][0-9]{1,2}:?[0-9]{2})|[ \t]*\(?([A-Za-z]{1,5})\b)?"
_MONTH = r"([A-Za-z]{3})[a-z]{0,6}"
_YEAR = r"([0-9]{4}|[0-9]{2,3})"
# day month year time zone: "Mon, 2 Jan 2006 15:04:05 -0700", "2-Jan-06 15:04 GMT"
_RFC = re.compile(rf"([0-9]{{1,2}})[ \t-]{{1,9}}{_MONTH}\.?[ \t,-]{{1,9}}{_YEAR}[ \t,]{{1,9}}{_TIME}{_ZONE}")
# month day time year: "Mon Jan  2 15:04:05 2006"
_ASCTIME = re.compile(
    rf"{_MONTH}[ \t]{{1,9}}([0-9]{{1,2}})[ \t]{{1,9}}{_TIME}(?:[ \t]{{1,9}}([A-Z]{{2,5}}))?"
    r"[ \t]{1,9}([0-9]{4})(?:[ \t]*([+-][0-9]{4}))?"
)
_ISO = re.compile(
    rf"([0-9]{{4}})-([0-9]{{2}})-([0-9]{{2}})(?:[T \t]{{1,9}}{_TIME}[ \t]*(Z|[+-][0-9]{{2}}:?[0-9]{{2}})?)?"
)
_COMMENT = re.compile(r"\([^()]{0,100}\)")
_LONGEST = 300


def parse_date(text: str) -> datetime | None:
    """Return the date in a Date field, or None when none can be read.

    It has a time zone: UTC where none can be read. Two-digit years are read as RFC 5322 4.3 says. A leap second becomes
    the second before it.
    """
    text = " ".join(text[:_LONGEST].split())
    if found := _RFC.search(text) or _RFC.search(_COMMENT.sub(" ", text)):
        day, month, year, hour, minute, second, offset, zone = found.groups()
        return _date(year, _MONTH_NUMBER.get(month.lower()), day, hour, minute, second, offset or zone)
    if found := _ASCTIME.search(text):
        month, day, hour, minute, second, zone, year, offset = found.groups()
        return _date(year, _MONTH_NUMBER.get(month.lower()), day, hour, minute, second, offset or zone)
    if found := _ISO.search(text):
        year, number, day, hour, minute, second, zone = found.groups()
        return _date(year, int(number), day, hour or "0", minute or "0", second, zone)
    return None


def _date(
    year: str, month: int | None, day: str, hour: str, minute: str, second: str | None, zone: str | None
) -> datetime | None:
    number = int(year)  # RFC 5322 4.3; "0001" is what some write for 2001
    if number < 50:
        number += 2000
    elif number < 1000:
        number += 1900
    try:
        return datetime(
            number,
            month or 0,
            int(day),
            int(hour),
            int(minute),
            min(int(second or 0), 59),
            tzinfo=_zone(zone),
        )
    except ValueError:
        return None


def _zone(text: str | None) -> timezone:
    if not text:
        return UTC
    if text[0] in "+-":
        digits = text[1:].replace(":", "").rjust(4, "0")
        minutes = int(digits[:-2]) * 60 + int(digits[-2:])
        if minutes >= 24 * 60:
            return UTC
        return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes)) if minutes else UTC
    hours = _ZONES.get(text.lower())
    return timezone(timedelta(hours=hours)) if hours is not None else UTC


def format_date(when: datetime) -> str:
    """Return a date as RFC 5322 3.3 wants it: `"Mon, 02 Jan 2006 15:04:05 -0700"`.

    A naive time is taken as UTC and written with -0000. An offset is rounded to minutes. Raises ValueError for a year
    before 1900, which RFC 5322 does not allow, and for an offset that rounds to a whole day.
    """
    if when.year < 1900:
        raise ValueError(f"RFC 5322 has no years before 1900: {when.year}")
    offset = when.utcoffset()
    if offset is not None and offset % _MINUTE:
        # email.utils would write seconds, as some time zones had in the nineteenth century.
        when = when.replace(tzinfo=timezone(round(offset / _MINUTE) * _MINUTE))
    return format_datetime(when)
