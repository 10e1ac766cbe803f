"""Which day a date is, and how far days are apart."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from duologue.skills import dates, say
from duologue.skills.base import Context, Match, schema

_DAY = re.compile(
    r"(?:(?:on )?(?:what|which)(?: is)?(?: the)? (?:day of the week|weekday|day|date)(?: of the week)?"
    r"(?: (?:is|was|will|would|does|did|it|be|has|the date|fall|on))*|when (?:is|was))"
    r" (.+?)(?: (?:be|is|was|fall|falls|fall on|on|happen))?"
)
_COUNT = re.compile(
    r"(?:how (?:many|much) (days|weeks|months|years)(?: (?:is|are|was|were|it|there|left|do we have|have passed"
    r"|to go|has it been"
    r"|it is))*|how (?:long|far)(?: (?:is|it|are|there|left|do we have|away|has it been|was it|off))*)"
    r" (until|till|to|before|since|between|from|ago|is|was) (.+)"
)
_LIMITS = "I only know dates from the year one to the year nine thousand nine hundred ninety-nine."


class DayArithmetic:
    name = "day_arithmetic"
    description = "Tell which weekday and date a day is, or count the days between dates."
    parameters = schema(
        ("ask",),
        ask={"type": "string", "enum": ["day", "count"]},
        date={"type": "string", "format": "date", "description": "The day, or the last day of those to count"},
        since={"type": "string", "format": "date", "description": "The first day of those to count; today if left out"},
        unit={"type": "string", "enum": ["days", "weeks", "months", "years"]},
    )
    examples = ("what day is it in ten days", "how many days until Christmas")

    def match(self, text: str, context: Context) -> Match | None:
        today = context.today
        try:
            counted = _COUNT.fullmatch(text)
            if counted:
                return _count(counted, today)
            asked = _DAY.fullmatch(text)
            if not asked:
                return None
            past = bool(re.search(r"\b(?:was|were|did)\b", text))
            day = dates.whole(asked[1], today, past=past)
        except dates.TooFarError:
            return Match({"ask": "day"})
        if day is None or asked[1] == "today":
            return None
        return Match({"ask": "day", "date": day.isoformat()}, 0.85 if text.startswith("when") else 0.95)

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        try:
            day = date.fromisoformat(arguments.get("date", ""))
            since = date.fromisoformat(arguments.get("since", context.today.isoformat()))
        except ValueError:
            return _LIMITS
        if arguments["ask"] == "day":
            away = (day - context.today).days
            verb = "is" if away == 0 else "was" if away < 0 else "will be"
            return f"That {verb} {say.day(day, today=context.today)}."
        first, last = sorted((since, day))
        amount = _amount(first, last, arguments.get("unit", "days"))
        if since != context.today:
            return f"From {say.day(first)} to {say.day(last)} it is {amount}."
        if day == context.today:
            return "That is today."
        named = say.day(day, today=context.today)
        return f"It is {amount} until {named}." if day > since else f"It is {amount} since {named}."


def _count(found: re.Match[str], today: date) -> Match | None:
    unit, how, rest = found[1], found[2], found[3]
    arguments = {"ask": "count"}
    if how == "between" or " to " in rest:
        first, _, last = rest.partition(" and " if how == "between" else " to ")
        start = dates.whole(first, today if _relative(first) else today.replace(month=1, day=1))
        end = dates.whole(last, today if _relative(last) else start) if start else None
        if start is None or end is None:
            return None
        arguments |= {"since": start.isoformat(), "date": end.isoformat()}
    else:
        if how == "from":
            return None
        day = dates.whole(rest, today, past=how in ("since", "was"))
        if day is None:
            return None
        arguments["date"] = day.isoformat()
    if unit and unit != "days":
        arguments["unit"] = unit
    return Match(arguments)


def _relative(text: str) -> bool:
    return not any(month in text for month in dates.MONTHS)


def _amount(first: date, last: date, unit: str) -> str:
    days = (last - first).days
    if unit == "weeks":
        weeks, rest = divmod(days, 7)
        parts = [say.count(weeks, "week")] if weeks else []
        return say.listing(parts + ([say.count(rest, "day")] if rest or not weeks else []))
    if unit in ("months", "years"):
        span = dates.relativedelta(last, first)
        months = span.years * 12 + span.months
        numbers = [(span.years, "year"), (span.months, "month")] if unit == "years" else [(months, "month")]
        return (
            say.listing([say.count(number, name) for number, name in [*numbers, (span.days, "day")] if number])
            or "zero days"
        )
    return say.count(days, "day")
