"""Arguments of a tool out of a request, each of the kind that its schema wants: nothing is made up.

What has a form of its own (dates, times, lengths, enums, yes or no, numbers) is read first and taken out; texts are
what is left, by what their name says they are: a person, a place, a message, or the thing that is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from duologue.skills import dates, free_text, times
from duologue.skills.base import Context
from duologue.skills.schemas import problem
from duologue.skills.text_words import IDLE, content, stem
from duologue.skills.tools import Tool, same, spaced
from duologue.skills.words import NUMBER, as_said, number

_TIME = re.compile(r"\btime\b")
_DATE = re.compile(r"\b(?:date|day)\b")
_LENGTHS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_OFF = frozenset(["off", "out", "no", "not", "disable", "disabled", "stop", "without", "false"])
_ON = frozenset(["on", "yes", "enable", "enabled", "start", "with", "true"])


@dataclass
class Extraction:
    """What was read.

    Attributes:
        missing: required arguments that the request does not hold.
        typed: how many arguments had a form of their own.
        left: the words that no argument took.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    typed: int = 0
    left: list[str] = field(default_factory=list)


def extract(tool: Tool, text: str, original: str, context: Context) -> Extraction:
    """Reads the arguments of `tool` from `text` (`words.request` of `original`)."""
    reader = _Reader(tool, text, original, context)
    for read in (reader.dates, reader.lengths, reader.times, reader.enums, reader.switches, reader.numbers):
        read()
    typed = len(reader.found)
    reader.texts()
    for name in [name for name, value in reader.found.items() if problem(value, _schema(tool.properties[name]))]:
        del reader.found[name]
    missing = tuple(name for name in tool.required if name not in reader.found)
    return Extraction(reader.found, missing, typed, reader.rest().split())


class _Reader:
    """`marks` holds the characters of the text that an argument has taken."""

    def __init__(self, tool: Tool, text: str, original: str, context: Context):
        self.text, self.original, self.context = text, original, context
        self.marks = [False] * len(text)
        self.found: dict[str, Any] = {}
        required = [name for name in tool.required if name in tool.properties]
        names = [*required, *(name for name in tool.properties if name not in required)][:64]
        self.schemas = {name: _schema(tool.properties[name]) for name in names}
        self.about = {
            name: f"{spaced(name)} {str(part.get('description', ''))[:300].lower()}"
            for name, part in self.schemas.items()
        }
        self.required = set(required)
        self.vocabulary = tool.words

    def open(self, *kinds: str) -> list[str]:
        """The arguments of these kinds that are still to be found."""
        return [name for name, part in self.schemas.items() if name not in self.found and _kind(part) in kinds]

    def take(self, name: str, value: Any, start: int, end: int) -> None:
        self.found[name] = value
        self.marks[start:end] = [True] * (end - start)

    def rest(self, hole: str = " ") -> str:
        """The text with a hole for every character that was taken."""
        return "".join(hole if mark else char for mark, char in zip(self.marks, self.text, strict=True))

    def form(self, name: str) -> str:
        """date, time, date-time or another format of a text; empty for a free one."""
        part, about = self.schemas[name], self.about[name]
        if isinstance(part.get("format"), str):
            return part["format"]
        if _DATE.search(spaced(name)) and "week" not in spaced(name):
            return "date"
        return "time" if _TIME.search(spaced(name)) or "hh:mm" in about else ""

    def dates(self) -> None:
        for name in self.open("string"):
            if "enum" in self.schemas[name] or self.form(name) != "date":
                continue
            try:
                found = dates.find(self.rest(), self.context.today)
            except dates.TooFarError:
                continue
            if found:
                self.take(name, found.date.isoformat(), found.start, found.end)

    def lengths(self) -> None:
        for name in self.open("number", "integer"):
            unit = next((unit for unit in _LENGTHS if re.search(rf"\b{unit}s?\b", self.about[name])), None)
            found = times.find_duration(self.rest()) if unit else None
            if unit and found:
                value = number(str(found.seconds / _LENGTHS[unit]))
                self.take(name, value, found.start, found.end)

    def times(self) -> None:
        for name in self.open("string"):
            if "enum" in self.schemas[name] or self.form(name) not in ("time", "date-time"):
                continue
            found = times.find(self.text)
            if not found or any(self.marks[found.start : found.start + 3]):
                continue
            hour = found.hour + 12 if not found.sure and 1 <= found.hour < 8 else found.hour
            value = f"{hour:02d}:{found.minute:02d}"
            if self.form(name) == "date-time":
                try:
                    day = dates.find(self.text, self.context.today)
                except dates.TooFarError:
                    continue
                value = f"{(day.date if day else self.context.today).isoformat()}T{value}:00"
            self.take(name, value, found.start, found.end)

    def enums(self) -> None:
        for name in list(self.schemas):
            part = self.schemas[name]
            many = _kind(part) == "array"
            values = (
                (part.get("items", {}) if many else part).get("enum", [])
                if isinstance(part.get("items", {}), Mapping)
                else []
            )
            hits = [(place, value) for value in values[:200] if (place := self._said(value))]
            hits.sort(key=lambda hit: hit[0])
            if many and hits:
                self.found[name] = [value for _, value in hits]
            elif hits and name not in self.found:
                exact = [hit for hit in hits if str(hit[1]).lower().replace("_", " ") in self.text] or hits
                (start, end), value = max(exact, key=lambda hit: hit[0][1] - hit[0][0])
                self.take(name, value, start, end)

    def _said(self, value: Any) -> tuple[int, int] | None:
        """Where a value of an enum stands in the request: as it is, or word for word by a synonym."""
        wanted = spaced(str(value)).split()
        if not wanted:
            return None
        places = [match.span() for match in re.finditer(r"[a-z0-9']+", self.text)]
        for first in range(len(places) - len(wanted) + 1):
            spans = places[first : first + len(wanted)]
            if all(
                self.text[a:b] == word or (len(word) > 2 and same(self.text[a:b], word))
                for (a, b), word in zip(spans, wanted, strict=True)
            ):
                return spans[0][0], spans[-1][1]
        return None

    def switches(self) -> None:
        for name in self.open("boolean"):
            yes, no = _two_ways(self.about[name], general=name in self.required)
            for match in re.finditer(r"[a-z']+", self.text):
                if match[0] in yes | no and not any(self.marks[match.start() : match.end()]):
                    self.take(name, match[0] in yes, match.start(), match.end())
                    if match[0] in no:
                        break
            named = set(content(spaced(name))) & set(content(self.rest()))
            if name not in self.found and name not in self.required and named:
                self.found[name] = not re.search(r"\b(?:no|not|without)\b", self.text)

    def numbers(self) -> None:
        names = self.open("integer", "number")
        pairs = []  # how near a number stands to a word of an argument, the nearest first
        for name in names:
            about = set(content(self.about[name]))
            for match in re.finditer(rf"(?<![\w.]){NUMBER}(?![\w.])", self.rest()):
                after = [stem(word) for word in self.text[match.end() :].split()[:4]]
                before = [stem(word) for word in self.text[: match.start()].split()[:-5:-1]]
                steps = [float(place) for place, word in enumerate(after) if word in about]
                steps += [place + 0.5 for place, word in enumerate(before) if word in about]
                if steps or name in self.required or len(names) == 1:
                    pairs.append((min(steps, default=9.0), match.start(), name, match))
        for _, start, name, match in sorted(pairs, key=lambda pair: pair[:2]):
            value = number(match[0])
            if self.text[:start].endswith("minus "):
                value = -value
            if name not in self.found and not self.marks[start] and not problem(value, self.schemas[name]):
                self.take(name, value, start, match.end())

    def texts(self) -> None:
        """Free texts: each is looked for by its role; one thing is what is left."""
        names = [name for name in self.open("string") if "enum" not in self.schemas[name] and not self.form(name)]
        names += [name for name in self.open("array") if _kind(_schema(self.schemas[name].get("items"))) == "string"]
        roles = {name: free_text.role(spaced(name), self.about[name]) for name in names}
        for role in ("person", "body", "place"):
            for name in [name for name in names if roles[name] == role]:
                self._keep(name, free_text.FINDERS[role](self.rest(free_text.HOLE), self.about[name]))
        things = [name for name in names if roles[name] == "thing" and (name in self.required or not self.required)]
        if things:
            self._keep(things[0], free_text.thing(self.rest(free_text.HOLE), self.vocabulary))

    def _keep(self, name: str, span: tuple[int, int] | None) -> None:
        if span is None:
            return
        start, end = span
        before = len(self.text[:start].split())
        said = as_said(self.original, self.text.split(), before, before + len(self.text[start:end].split()))
        many = _kind(self.schemas[name]) == "array"
        self.take(
            name, [part.strip() for part in re.split(r",| and ", said) if part.strip()] if many else said, start, end
        )


def _two_ways(about: str, *, general: bool) -> tuple[set[str], set[str]]:
    """The words for true and for false: those of the description; on and off too where one of the two must be said."""
    link = "(?:to|for|if|means|is|when)"
    said = re.search(rf"true {link} ([a-z ]+?)[,;.] (?:and )?false {link} ([a-z ]+)", about)
    yes, no = (set(said[1].split()) - IDLE, set(said[2].split()) - IDLE) if said else (set(), set())
    if said:
        yes, no = yes | {said[1].split()[-1]}, no | {said[2].split()[-1]}
    if general:
        yes, no = yes | _ON, no | _OFF
    return yes - no, no - yes


def _schema(part: Any) -> dict[str, Any]:
    """One of the alternatives that is not null; what is no object is any string."""
    if not isinstance(part, Mapping):
        return {"type": "string"}
    for key in ("anyOf", "oneOf"):
        options = [
            option for option in part.get(key, []) if isinstance(option, Mapping) and option.get("type") != "null"
        ]
        if options:
            return {**{name: value for name, value in part.items() if name != key}, **options[0]}
    return dict(part)


def _kind(part: Mapping[str, Any]) -> str:
    kind = part.get("type", "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "string")
    return kind if isinstance(kind, str) else "string"
