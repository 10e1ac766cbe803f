"""Times of day and lengths of time as they are said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo

from duologue.skills.words import NUMBER

SECONDS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86400, "week": 604800}
_PART = rf"(?:({NUMBER})|a|an) ?({'|'.join(SECONDS)})s?\b"
_DURATION = re.compile(rf"\b{_PART}(?: (?:and )?{_PART})*(?: (?:and )?({NUMBER}|a half)\b(?! ?[a-z]*(?:am|pm)\b))?")
_ONE = re.compile(_PART)
_HALF_DAY = (
    r"(?: ?(am|pm)\b| o'?clock(?: ?(am|pm)\b)?)?"
    r"(?:(?: o'?clock)? (?:(?:in the|this|tomorrow|today) (morning|afternoon|evening)|at (night)|(tonight)))?"
)


def _before(hour: str) -> int:
    """The hour before; before one it is twelve."""
    return (int(hour) - 1) % 24 or 12


_FORMS = [
    (r"half past ([0-2]?\d)", lambda m: (int(m[1]), 30)),
    (r"(?:a )?quarter past ([0-2]?\d)", lambda m: (int(m[1]), 15)),
    (r"(?:a )?quarter (?:to|of|before) ([0-2]?\d)", lambda m: (_before(m[1]), 45)),
    (r"(\d{1,2}) (?:minutes? )?(?:past|after) ([0-2]?\d)", lambda m: (int(m[2]), int(m[1]))),
    (r"(\d{1,2}) (?:minutes? )?(?:to|before) ([0-2]?\d)", lambda m: (_before(m[2]), 60 - int(m[1]))),
    (r"([0-2]?\d)[:.]([0-5]\d)", lambda m: (int(m[1]), int(m[2]))),
    (r"([0-2]?\d) (?:oh|o|0) (\d)", lambda m: (int(m[1]), int(m[2]))),
    (r"([0-2]?\d) ([0-5]\d)", lambda m: (int(m[1]), int(m[2]))),
]


@dataclass(frozen=True)
class Time:
    """A time of day, and the characters of the request that said it.

    Attributes:
        sure: the half of the day was said, or the hour leaves no choice.
    """

    hour: int
    minute: int
    sure: bool
    start: int
    end: int

    @property
    def iso(self) -> str:
        return f"{self.hour:02d}:{self.minute:02d}"


def find(text: str, *, bare: bool = False) -> Time | None:
    """The first time of day in the request.

    Args:
        bare: a lone number may be an hour, as where only a time is wanted ("at seven" always is).
    """
    named = re.search(r"\b(?:at |by )?(noon|midday|midnight)\b", text)
    if named:
        return Time(0 if named[1] == "midnight" else 12, 0, True, *named.span())
    for pattern, read in _FORMS:
        for match in re.finditer(rf"(?<![\d.:])\b(?:at |by )?{pattern}(?![\d.:]){_HALF_DAY}", text):
            found = _time(match, *read(match), text)
            if found:
                return found
    lead = "(?:(?:at|by|for) )?" if bare else "(?:at|by) "
    hour = (
        r"(?<![\d.:])\b(?:(?:at|by) )?([0-2]?\d) ?"
        r"(?:am|pm|o'?clock|in the (?:morning|afternoon|evening)|at night|tonight)\b"
        rf"|(?<![\d.:])\b{lead}([0-2]?\d)\b(?![.:]\d)(?! (?:[a-z]+s|percent|degrees?)\b)"
    )
    for match in re.finditer(hour, text):
        number = int(match[1] or match[2])
        begin = match.start(1) if match[1] else match.start(2)
        said = re.compile(rf"[0-2]?\d{_HALF_DAY}").match(text, begin)
        if said and number < 25:
            found = _time(said, number, 0, text, start=match.start())
            if found:
                return found
    return None


def _time(match: re.Match[str], hour: int, minute: int, text: str, *, start: int | None = None) -> Time | None:
    if hour > 24 or minute > 59:
        return None
    half = " ".join(group for group in match.groups() if group and not group[0].isdigit())
    if not half:
        elsewhere = re.search(
            r"\b(?:in the|this|tomorrow|today|yesterday|[a-z]+day) (morning|afternoon|evening|night)\b|\b(tonight)\b",
            text,
        )
        half = elsewhere[1] or elsewhere[2] if elsewhere else ""
    later = any(word in half for word in ("pm", "afternoon", "evening", "tonight")) or ("night" in half and hour >= 6)
    if half and hour <= 12:
        hour = hour % 12 + (12 if later else 0)
    sure = bool(half) or hour > 12 or hour == 0
    return Time(hour % 24, minute, sure, match.start() if start is None else start, match.end())


@dataclass(frozen=True)
class Duration:
    """A length of time, and the characters of the request that said it."""

    seconds: int | float
    start: int
    end: int


def find_duration(text: str) -> Duration | None:
    """The first length of time: 2 minutes and 30 seconds, 1.5 hours, 1 hour 20, half an hour."""
    match = _DURATION.search(text)
    if not match:
        return None
    total, size = 0.0, 1
    for part in _ONE.finditer(match[0]):
        size = SECONDS[part[2]]
        total += float(part[1] or 1) * size
    tail = match.group(match.lastindex) if match.lastindex and match.end(match.lastindex) == match.end() else None
    if tail == "a half":
        total += size / 2
    elif tail and re.fullmatch(NUMBER, tail):
        if size not in (3600, 60):
            return Duration(_round(total), match.start(), match.start(match.lastindex or 0))
        total += float(tail) * size / 60
    return Duration(_round(total), match.start(), match.end())


def _round(seconds: float) -> int | float:
    return int(seconds) if seconds == int(seconds) else seconds


def at(day: date, hour: int, minute: int, zone: tzinfo | None) -> datetime:
    """A wall-clock time in a zone; one that a clock change leaves out becomes the time after the change."""
    wall = datetime.combine(day, time(hour, minute), tzinfo=zone)
    return wall.astimezone(timezone.utc).astimezone(zone)


def after(now: datetime, length: timedelta) -> datetime:
    """That much real time later, clock changes notwithstanding."""
    return (now.astimezone(timezone.utc) + length).astimezone(now.tzinfo)
