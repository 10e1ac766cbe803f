"""Today: date, weekday, month, year, week."""

from __future__ import annotations

import re
from typing import Any

from duologue.skills import say
from duologue.skills.base import Context, Match, schema

_NOW = (
    r"(?: (?:today|it is|is it|now|currently|right now|we are in|are we in|is today|today is|of today|we have"
    r"|do we have|this is))*"
)
_FORMS = {
    "weekday": r"(?:what|which) (?:day|weekday|day of the week)(?: of the week)?"
    r"|(?:what|which) (?:day|weekday)(?: of the week)? (?:is|it is)(?: today)?",
    "date": r"(?:what is )?(?:today'?s|the(?: current)?) date|(?:what|which) date|what is the day and (?:the )?date",
    "month": r"(?:what|which|the current) month|what is the (?:current )?month",
    "year": r"(?:what|which|the current) year|what is the (?:current )?year",
    "week": r"(?:what|which) (?:calendar )?week(?: of the year)?|what is the (?:current )?week(?: number)?"
    r"|(?:what|which) week number",
}
_REQUESTS = {ask: re.compile(rf"(?:{form}){_NOW}") for ask, form in _FORMS.items()}


class CalendarDay:
    name = "date"
    description = "Tell today's date, weekday, month, year or week."
    parameters = schema(ask={"type": "string", "enum": [*_FORMS]})
    examples = ("what's the date today", "what day is it")

    def match(self, text: str, context: Context) -> Match | None:
        for ask, form in _REQUESTS.items():
            if form.fullmatch(text) and len(text.split()) > 2 and text != "the current date":
                return Match({"ask": ask})
        return None

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        today = context.today
        match arguments.get("ask", "date"):
            case "weekday":
                return f"It is {say.WEEKDAYS[today.weekday()]}."
            case "month":
                return f"It is {say.MONTHS[today.month - 1]}."
            case "year":
                return f"It is {say.year(today.year)}."
            case "week":
                return f"It is week {say.cardinal(today.isocalendar().week)} of the year."
        return f"Today is {say.day(today)}."
