"""Texts without a form of their own, by the part they play: a person, a message, a place, or the thing wanted.

Every finder gets the request with `HOLE` for each character that another argument took, and gives the span it chose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set

from duologue.skills.text_words import content, stem
from duologue.skills.tools import groups
from duologue.skills.words import NUMBER

HOLE = "\0"
_ROLES = {
    "person": re.compile(r"\b(?:recipient|person|contact|who|whom|callee|addressee)\b"),
    "body": re.compile(r"\b(?:text|message|body|content|says?|saying)\b"),
    "place": re.compile(r"\b(?:city|town|place|location|destination|address|where|country|station|region)\b"),
}
_WHO = (
    r"((?:my|the|our|your) [a-z']+|(?!(?:a|an|the|my|me|to|that|saying|message|text|it|him|her|them|us)\b)[a-z][a-z']*)"
)
_PERSON_CUES = (
    "(?:message|text|note|email|call|letter|mail|sms) to",
    "text|message|tell|call|ask|email|phone|ring|contact|write to|write|let",
    "to|for|with",
)
_SAYING = re.compile(
    r"\b(?:saying that|saying|that says|which says|to say|and say|with the text|know that|that) ([^\0]+)$"
)
_AFTER_PERSON = re.compile(r"\0 (?:that )?([^\0]+)$")
_AFTER_VERB = re.compile(r"\b(?:text|message|write|post|say|send) (?!an? |to )([^\0]+)$")
_STOP = r"(?= (?:by|on|at|in|with|using|for|from|via|and|please|going|like|is|be|this|next)\b| ?\0|$)"
_NO_PLACE_WORDS = "be rain snow go get me us take drive walk it the a weather forecast need have see know"
_NO_PLACE = frozenset(_NO_PLACE_WORDS.split())
_LEAD = re.compile(
    r"(?:(?:i|we) (?:want|would like|need|would love|are out of|am out of|have run out of)(?: you)?(?: to)?"
    r"|let us|(?:can|could|may) (?:i|we)"
    r"|i feel like)\b ?"
)
_VERB = re.compile(
    r"(?:listen to|look for|search for|look up|put on|turn on|write down|set up|add|put|play|create|make"
    r"|schedule|set|buy|order|find|search"
    r"|start|open|show|get|note|book|reserve|plan|hear|have|do|watch|remove|delete|cancel|run|track|translate|read)\b ?"
)
_SKIP = re.compile(rf"(?:(?:me|us|an?|the|some|my|our|any|another|new|{NUMBER})\b|\0+|for\b| )+")
_TAIL = re.compile(r" (?:on|in|to|into|from|off)(?: (?:my|the|our))?(?: [a-z]+)?? ([a-z]+)\b")
_HOLE_TAIL = re.compile(r"(?: (?:on|at|in|for|by|from|to))? ?\0| (?:and )?(?:put|add|write) (?:it|them|that)\b")
_NAMED = re.compile(r"\b(?:called|named|titled) ([^\0]+)")


def role(name: str, about: str) -> str:
    """person, body, place or thing; the name of the argument counts before its description."""
    for text in (name, about):
        for part, pattern in _ROLES.items():
            if pattern.search(text):
                return part
        if text is name and re.search(r"\b(?:query|item|title|song|subject|topic|task|name)\b", name):
            return "thing"
    return "thing"


def person(rest: str, about: str) -> tuple[int, int] | None:
    for cue in _PERSON_CUES:
        if found := re.search(rf"\b(?:{cue}) {_WHO}", rest):
            return found.span(1)
    return None


def body(rest: str, about: str) -> tuple[int, int] | None:
    for form in (_SAYING, _AFTER_PERSON, _AFTER_VERB):
        found = form.search(rest)
        if found and found[1].strip():
            return found.span(1)
    return None


def place(rest: str, about: str) -> tuple[int, int] | None:
    going = re.search(r"\b(?:destination|to go)\b", about)
    cues = "to|towards|for|find" if going else "in|for|at|near|around|of|to"
    for found in re.finditer(rf"\b(?:{cues}) (?=[a-z])", rest):
        name = re.match(rf"[a-z][a-z' .-]*?{_STOP}", rest[found.end() :])
        if name and not (set(name[0].split()) <= _NO_PLACE) and name[0].split()[0] not in _NO_PLACE - {"the"}:
            return found.end(), found.end() + name.end()
    return None


def thing(rest: str, vocabulary: Set[str]) -> tuple[int, int] | None:
    """What is left when verbs in front, and what only names the tool behind, are dropped."""
    if named := _NAMED.search(rest):
        return _trimmed(rest, *named.span(1))
    start = 0
    for pattern in (_LEAD, _VERB, _SKIP):
        if found := pattern.match(rest, start):
            start = found.end()
    if misheard := re.match(rf"[a-z']+ {HOLE}+ ", rest) if not start else None:  # "eat two eggs": the verb was lost
        start = misheard.end()
    end = len(rest)
    if hole := _HOLE_TAIL.search(rest, start):
        end = hole.start()
    for tail in _TAIL.finditer(rest, start, end):
        if groups([stem(tail[1])]) & vocabulary:
            end = tail.start()
            break
    return _trimmed(rest, start, end) if content(rest[start:end]) else None


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    lead = len(piece) - len(piece.lstrip())
    return (start + lead, start + len(piece.rstrip())) if piece.strip() else None


FINDERS: Mapping[str, Callable[[str, str], tuple[int, int] | None]] = {"person": person, "body": body, "place": place}
