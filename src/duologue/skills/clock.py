"""What time it is, here and elsewhere."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from duologue.skills import say
from duologue.skills.base import Context, Match, schema

_PLACES = {  # what people say that is not the name of a zone
    "england": "Europe/London",
    "britain": "Europe/London",
    "the uk": "Europe/London",
    "germany": "Europe/Berlin",
    "munich": "Europe/Berlin",
    "france": "Europe/Paris",
    "italy": "Europe/Rome",
    "spain": "Europe/Madrid",
    "barcelona": "Europe/Madrid",
    "switzerland": "Europe/Zurich",
    "geneva": "Europe/Zurich",
    "japan": "Asia/Tokyo",
    "china": "Asia/Shanghai",
    "beijing": "Asia/Shanghai",
    "india": "Asia/Kolkata",
    "delhi": "Asia/Kolkata",
    "new delhi": "Asia/Kolkata",
    "mumbai": "Asia/Kolkata",
    "bangalore": "Asia/Kolkata",
    "korea": "Asia/Seoul",
    "california": "America/Los_Angeles",
    "san francisco": "America/Los_Angeles",
    "seattle": "America/Los_Angeles",
    "las vegas": "America/Los_Angeles",
    "texas": "America/Chicago",
    "houston": "America/Chicago",
    "dallas": "America/Chicago",
    "boston": "America/New_York",
    "washington": "America/New_York",
    "miami": "America/New_York",
    "atlanta": "America/New_York",
    "philadelphia": "America/New_York",
    "rio": "America/Sao_Paulo",
    "utc": "UTC",
    "greenwich": "UTC",
}
_NOW = (
    r"what time (?:is it|it is)|what is the (?:current |exact )?time|(?:the )?(?:current |exact )?time|how late is it"
    r"|how late it is|(?:have|do) you (?:got|have) the time|what the time is|got the time|time check"
)
_REQUEST = re.compile(
    rf"(?:{_NOW})(?: right| now| it is| at the moment| today| here| currently)*(?: (?:over "
    rf"|there )?in ([a-z' ]+?))?(?: right now| now)?"
)


class Clock:
    name = "time"
    description = "Tell the current time, here or in another city."
    parameters = schema(place={"type": "string", "description": "The city, if not here", "maxLength": 600})
    examples = ("what time is it", "what time is it in Tokyo")

    def match(self, text: str, context: Context) -> Match | None:
        found = _REQUEST.fullmatch(text)
        if not found or text == "time":
            return None
        if not found[1]:
            return Match({})
        return Match({"place": found[1]}, 0.95 if zone_of(found[1]) else 0.8)

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        place = arguments.get("place", "")
        if not place:
            return f"It is {say.clock(context.now)}."
        zone = zone_of(place)
        if zone is None:
            return f"I do not know what time it is in {place.title() if len(place) <= 40 else 'that place'}."
        there = context.now.astimezone(ZoneInfo(zone))
        day = (there.date() - context.today).days
        suffix = {1: ", tomorrow", -1: ", yesterday"}.get(day, "")
        return f"In {place.title()} it is {say.clock(there)}{suffix}."


def zone_of(place: str) -> str | None:
    """The zone of a city or of a few countries; lower case, spaces between words."""
    return _PLACES.get(place) or _zones().get(place.removeprefix("the "))


@lru_cache(maxsize=1)
def _zones() -> dict[str, str]:
    areas = ("Europe", "America", "Asia", "Africa", "Australia", "Pacific", "Atlantic", "Indian")
    names = sorted(name for name in available_timezones() if name.split("/")[0] in areas)
    return {name.split("/")[-1].replace("_", " ").lower(): name for name in names}
