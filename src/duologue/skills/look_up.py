"""Answers out of a folder of texts, the source named."""

from __future__ import annotations

import re
from typing import Any

from duologue.skills import say
from duologue.skills.base import Context, Match, schema
from duologue.skills.text_words import content

_PLACE = (
    r"(?:the |my |our |your )?(?:[a-z]+ ){0,2}?(?:notes|documents?|docs|files?|manuals?|handbook|knowledge base"
    r"|folder|texts?|rules|guide"
    r"|instructions|library)"
)
_FORMS = [
    re.compile(rf"(?:look up|look for|search for|find)(?: out)? (?P<query>.+?) (?:in|from) {_PLACE}"),
    re.compile(
        rf"(?:search|check|look (?:it up )?in|look through|consult|ask) (?P<place>{_PLACE}) (?:for |about "
        rf"|and tell me |to see )?(?P<query>.+)"
    ),
    re.compile(rf"(?:according to|from|in) (?P<place>{_PLACE}) (?P<query>.+)"),
    re.compile(
        rf"what (?:do|does|did|is in) (?P<place>{_PLACE}) (?:say|have|tell me|mention|state|know)? ?(?:about|on"
        rf"|regarding) (?P<query>.+)"
    ),
    re.compile(rf"(?P<query>.+?),? (?:according to|in|from) (?P<place>{_PLACE})"),
    re.compile(r"look up (?P<query>.+)"),
]
_SURE = 0.75  # coverage from which a question is answered without being told to look


class LookUp:
    name = "look_up"
    description = "Look something up in the folder of texts."
    parameters = schema(("query",), query={"type": "string", "minLength": 1, "maxLength": 600})
    examples = ("what do my notes say about the garden", "look up the opening hours in the handbook")

    def match(self, text: str, context: Context) -> Match | None:
        if context.knowledge is None:
            return None
        for form in _FORMS:
            if found := form.fullmatch(text):
                parts = found.groupdict()
                return Match({"query": " ".join(filter(None, (parts.get("place"), parts["query"])))}, 0.95)
        if (
            not re.match(r"(?:what|when|where|who|which|how|is|are|does|do|can|may|why)\b", text)
            or len(text.split()) < 4
        ):
            return None
        passage = context.knowledge.find(text) if len(set(content(text))) > 1 else None
        return Match({"query": text}, min(passage.coverage, 0.9)) if passage and passage.coverage >= _SURE else None

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        if context.knowledge is None:
            return "I have no texts to look in."
        passage = context.knowledge.find(arguments["query"])
        if passage is None:
            return "I found nothing about that."
        return f"From {say.written(passage.source).rstrip('.')}: {say.written(passage.text)}"
