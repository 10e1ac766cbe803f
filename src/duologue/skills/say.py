"""Numbers, dates, times and lists in words: a speech decoder reads digits badly."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

from duologue import numbers

_MONTHS = "January February March April May June July August September October November December"
MONTHS = _MONTHS.split()
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MOST = 10**15  # beyond this a number is said with a power of ten
_O_CLOCK = "o'clock"


def cardinal(number: int) -> str:
    """1234 -> one thousand two hundred thirty-four."""
    if abs(number) >= _MOST:
        return _power_of_ten(Decimal(number))
    return numbers.cardinal(number)


def ordinal(number: int) -> str:
    """21 -> twenty-first."""
    return numbers.ordinal(number)


def year(number: int) -> str:
    """1984 -> nineteen eighty-four; 2007 -> two thousand seven."""
    return numbers.year(number)


def decimal(number: Decimal | Fraction | float | int, *, places: int = 2) -> str:
    """Said exactly where `places` digits after the point hold it, else rounded, with "about" in front.

    Small numbers keep `places` significant digits.
    """
    exact = number if isinstance(number, Fraction) else Fraction(str(number))
    with localcontext() as context:
        context.prec = 60
        value = Decimal(exact.numerator) / Decimal(exact.denominator)
        if abs(value) >= _MOST or (value and abs(value) < Decimal("1e-9")):
            return _power_of_ten(value)
        if value and abs(value) < 1:
            places -= value.adjusted() + 1
        rounded = value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN)
    said = cardinal(int(rounded)) if rounded == int(rounded) else _decimal(rounded)
    return said if Fraction(rounded) == exact else f"about {said}"


def _decimal(value: Decimal) -> str:
    text = f"{abs(value):f}".rstrip("0")
    whole, _, part = text.partition(".")
    return ("minus " if value < 0 else "") + f"{cardinal(int(whole))} point {digit_by_digit(part)}"


def _power_of_ten(value: Decimal) -> str:
    power = value.adjusted()
    front = value.scaleb(-power).quantize(Decimal("0.01"))
    said = _decimal(front) if front != int(front) else cardinal(int(front))
    side = "minus " if power < 0 else ""
    return f"about {said} times ten to the power of {side}{cardinal(abs(power))}"


def digit_by_digit(text: str) -> str:
    """905 -> nine zero five."""
    return numbers.digits(text)


def count(number: int, one: str, many: str = "") -> str:
    """3, day -> three days."""
    return f"{cardinal(number)} {one if abs(number) == 1 else many or one + 's'}"


def day(value: date, *, today: date | None = None) -> str:
    """Wednesday, March fourth; with the year where it is not this one."""
    said = f"{WEEKDAYS[value.weekday()]}, {MONTHS[value.month - 1]} {ordinal(value.day)}"
    return said if today and value.year == today.year else f"{said}, {year(value.year)}"


def clock(value: datetime) -> str:
    """15:05 -> three oh five in the afternoon."""
    hour, minute = value.hour, value.minute
    if (hour, minute) in ((0, 0), (12, 0)):
        return "noon" if hour else "midnight"
    part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
    part = "at night" if hour >= 22 else part
    said = cardinal((hour - 1) % 12 + 1)
    minutes = " o'clock" if minute == 0 else f" {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    return f"{said}{minutes} {part}"


def moment(value: datetime, now: datetime) -> str:
    """When, as seen from now: at seven o'clock in the morning tomorrow."""
    away = (value.date() - now.date()).days
    when = {0: "today", 1: "tomorrow"}.get(away) or f"on {day(value.date(), today=now.date())}"
    return f"{clock(value)} {when}"


def duration(value: timedelta) -> str:
    """5400 s -> one hour and thirty minutes."""
    seconds = round(value.total_seconds())
    parts = []
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(count(number, name))
    return listing(parts) or "zero seconds"


def listing(parts: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def written(text: str, *, most: int = 400) -> str:
    """Text from a file as it is spoken: no markup, numbers in words, whole sentences up to `most` characters."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text[: 4 * most])
    text = re.sub(r"https?://[^\s)>\]]+", " ", text)
    text = re.sub(r"^\s*(?:[-*+#>]+|\d+[.)])\s+", "", text, flags=re.M)
    text = re.sub(r"[*_`#|~<>{}\[\]\\]+", " ", text).replace("%", " percent").replace("&", " and ")
    text = re.sub(r"\b\d{1,3}(?:,\d{3})+\b(?!\.\d)", lambda m: cardinal(int(m[0].replace(",", ""))), text)
    text = re.sub(r"\b(\d{1,2}):(\d{2})\b", lambda m: _clock_said(int(m[1]), int(m[2])), text)
    text = re.sub(r"\b(\d{1,9})(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1])), text)
    text = re.sub(r"(?<![\d.])(1[1-9]\d\d|20\d\d)(?![\d.]\d)", lambda m: year(int(m[1])), text)
    text = re.sub(r"\d+(?:\.\d+)?", lambda m: f" {_number_said(m[0])} ", text)
    text = re.sub(r"\s+([,.;:?!])", r"\1", re.sub(r"\s+", " ", text)).strip()
    if len(text) > most:
        cut = max(text.rfind(mark, 0, most) for mark in (". ", "? ", "! "))
        text = text[: cut + 1] if cut > 0 else text[:most].rsplit(" ", 1)[0]
    return text if not text or text[-1] in ".?!" else f"{text.rstrip(',;: ')}."


def _number_said(digits: str) -> str:
    whole, point, part = digits.partition(".")
    said = (
        cardinal(int(whole)) if len(whole) < 16 and not (len(whole) > 1 and whole[0] == "0") else digit_by_digit(whole)
    )
    return f"{said} point {digit_by_digit(part)}" if point else said


def _clock_said(hour: int, minute: int) -> str:
    return f"{cardinal(hour)} {'oh ' if 0 < minute < 10 else ''}{cardinal(minute) if minute else _O_CLOCK}"
