"""Dates as they are said, in a request as `words.request` or `words.digits` gives it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

from dateutil.easter import easter
from dateutil.relativedelta import relativedelta

from duologue.skills.words import MONTHS

WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
HOLIDAYS: dict[str, tuple[int, int] | Callable[[int], date]] = {
    r"christmas eve": (12, 24),
    r"christmas(?: day)?|xmas": (12, 25),
    r"boxing day": (12, 26),
    r"new year'?s? eve": (12, 31),
    r"(?:the )?new year(?:'?s?(?: day)?)?": (1, 1),
    r"valentine'?s?(?: day)?": (2, 14),
    r"(?:st|saint) patrick'?s?(?: day)?": (3, 17),
    r"april fools?'?(?: day)?": (4, 1),
    r"halloween": (10, 31),
    r"independence day": (7, 4),
    r"good friday": lambda year: easter(year) - timedelta(2),
    r"easter monday": lambda year: easter(year) + timedelta(1),
    r"easter(?: sunday)?": lambda year: easter(year),
    r"mother'?s day": lambda year: nth_weekday(year, 5, weekday=6, nth=2),
    r"father'?s day": lambda year: nth_weekday(year, 6, weekday=6, nth=3),
    r"thanksgiving(?: day)?": lambda year: nth_weekday(year, 11, weekday=3, nth=4),
}
_MONTH = "|".join(MONTHS)
_DAY = r"([0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?: (?:of |in )?(this year|next year|last year|\d{4}|[12]\d (?:oh )?\d{1,2}|[12]\d hundred))?"
_UNITS = {"day": "days", "week": "weeks", "fortnight": "weeks", "month": "months", "year": "years"}
_UNIT = "|".join(_UNITS)
_SPAN = rf"(\d+|a|an|1|the) ({_UNIT})s?"


class TooFarError(ValueError):
    """A date before the year 1 or after the year 9999."""


@dataclass(frozen=True)
class Found:
    """A date, and the characters of the request that said it."""

    date: date
    start: int
    end: int


def find(text: str, today: date, *, past: bool = False) -> Found | None:
    """The first date in the request.

    Args:
        past: a day without a year is the last one gone by, not the next to come.
    Raises:
        TooFarError: the date is not in the calendar.
    """
    for pattern, read in _READERS:
        for match in re.finditer(rf"\b(?:{pattern})\b", text):
            try:
                value = read(match, today, past)
            except OverflowError as error:
                raise TooFarError(match[0]) from error
            if value is not None:
                return Found(value, match.start(), match.end())
    return None


def whole(text: str, today: date, *, past: bool = False) -> date | None:
    """The date that the whole text says, or none."""
    found = find(text, today, past=past)
    return found.date if found and not text[: found.start].strip() and not text[found.end :].strip() else None


def shift(start: date, number: int, unit: str) -> date:
    """`number` days, weeks, months or years later; the 31st becomes the month's last day.

    Raises:
        TooFarError: the date is not in the calendar.
    """
    if abs(number) > 4_000_000:
        raise TooFarError(f"{number} {unit}")
    number *= 2 if unit == "fortnight" else 1
    try:
        return start + relativedelta(**{_UNITS[unit]: number})  # type: ignore[arg-type]
    except (OverflowError, ValueError) as error:
        raise TooFarError(f"{number} {unit}") from error


def nth_weekday(year: int, month: int, *, weekday: int, nth: int) -> date:
    """The nth Monday (0) to Sunday (6) of a month."""
    first = date(year, month, 1)
    return first + timedelta((weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _iso(match: re.Match[str], today: date, past: bool) -> date | None:
    return _safe(int(match[1]), int(match[2]), int(match[3]))


def _relative(match: re.Match[str], today: date, past: bool) -> date:
    if match[1]:
        return today + timedelta(2)
    if match[2]:
        return today - timedelta(2)
    return today + timedelta({"tomorrow": 1, "yesterday": -1}.get(match[3], 0))


def _span(sign: int) -> Callable[[re.Match[str], date, bool], date]:
    def read(match: re.Match[str], today: date, past: bool) -> date:
        number = int(match[1]) if match[1].isdigit() else 1
        start = today
        if match.lastindex and match.lastindex > 2 and match[3]:
            start = {"tomorrow": today + timedelta(1), "yesterday": today - timedelta(1)}.get(match[3], today)
        return shift(start, sign * number, match[2])

    return read


def _near(match: re.Match[str], today: date, past: bool) -> date:
    return shift(today, -1 if match[1] == "last" else 1, match[2])


def _week_from(match: re.Match[str], today: date, past: bool) -> date:
    base = (
        _coming(WEEKDAYS.index(match[1]), today) if match[1] in WEEKDAYS else today + timedelta(match[1] == "tomorrow")
    )
    return base + timedelta(7)


def _weekday(match: re.Match[str], today: date, past: bool) -> date:
    index = WEEKDAYS.index(match[2])
    if match[1] == "last" or (past and match[1] != "next"):
        return today - timedelta((today.weekday() - index - 1) % 7 + 1)
    if match[1] == "next":
        return today + timedelta(7 - today.weekday() + index)
    return _coming(index, today)


def _coming(weekday: int, today: date) -> date:
    return today + timedelta((weekday - today.weekday() - 1) % 7 + 1)


def _month_day(match: re.Match[str], today: date, past: bool) -> date | None:
    month, number, year = match[1], match[2], match[3]
    return _in_year(lambda y: _safe(y, MONTHS.index(month) + 1, int(number)), year, today, past)


def _day_month(match: re.Match[str], today: date, past: bool) -> date | None:
    number, month, year = match[1], match[2], match[3]
    return _in_year(lambda y: _safe(y, MONTHS.index(month) + 1, int(number)), year, today, past)


def _holiday(when: tuple[int, int] | Callable[[int], date]) -> Callable[[re.Match[str], date, bool], date | None]:
    def read(match: re.Match[str], today: date, past: bool) -> date | None:
        return _in_year(when if callable(when) else lambda y: _safe(y, *when), match[1], today, past)

    return read


def _nth_of_month(match: re.Match[str], today: date, past: bool) -> date | None:
    first = today.replace(day=1)
    for months in range(0, -12, -1) if past else range(12):
        month = first + relativedelta(months=months)
        day = _safe(month.year, month.month, int(match[1]))
        if day and (day <= today if past else day >= today):
            return day
    return None


def _in_year(day: Callable[[int], date | None], said: str | None, today: date, past: bool) -> date | None:
    if said:
        return day(year_said(said, today))
    for step in range(9):  # the 29th of February may be eight years away
        year = today.year + (-step if past else step)
        found = day(year) if 1 <= year <= 9999 else None
        if found and (found <= today if past else found >= today):
            return found
    return None


def year_said(said: str, today: date) -> int:
    """17 76 -> 1776; 19 oh 5 -> 1905; 19 hundred -> 1900; next year."""
    if said.endswith("year"):
        return today.year + {"this": 0, "next": 1, "last": -1}[said.split()[0]]
    high, *low = said.replace("oh ", "").replace("hundred", "0").split()
    return int(high) * 100 + int(low[0]) if low else int(high)


def _safe(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


_READERS: list[tuple[str, Callable[[re.Match[str], date, bool], date | None]]] = [
    (
        r"(\d{4})-(\d{2})-(\d{2})|(\d{4}) - (\d{2}) - (\d{2})",
        lambda m, today, past: _safe(*map(int, re.findall(r"\d+", m[0]))),
    ),
    (rf"{_SPAN} ago", _span(-1)),
    (rf"(?:in|after|within) {_SPAN}(?: time)?", _span(1)),
    (rf"{_SPAN} (?:from|after) (today|now|tomorrow|yesterday)", _span(1)),
    (rf"{_SPAN} before (today|now|tomorrow|yesterday)", _span(-1)),
    (rf"(?:a|1) week (?:from )?(?:on )?({'|'.join(WEEKDAYS)}|tomorrow|today)", _week_from),
    *[(rf"(?:{name}){_YEAR}", _holiday(when)) for name, when in HOLIDAYS.items()],
    (rf"(?:the )?{_DAY} (?:of )?({_MONTH}){_YEAR}", _day_month),
    (rf"({_MONTH}) (?:the )?{_DAY}{_YEAR}", _month_day),
    (
        r"(the )?day after tomorrow|(the )?day before yesterday",
        lambda m, today, past: today + timedelta(2 if "after" in m[0] else -2),
    ),
    (r"()()(today|tonight|tomorrow|yesterday|this (?:morning|afternoon|evening))", _relative),
    (rf"(?:(next|this|last|on|this coming|coming) )?({'|'.join(WEEKDAYS)})", _weekday),
    (rf"(next|last) ({_UNIT})", _near),
    (r"the ([0-3]?\d)(?:st|nd|rd|th)(?! of)", _nth_of_month),
]
