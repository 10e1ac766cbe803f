"""Definitions from a glossary that is given."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError
from duologue.skills import say
from duologue.skills.base import Context, Match, schema

_THING = r"(?:(?:the|an?) )?(?:(?:word|term|expression|phrase) )?(?P<term>[a-z0-9][a-z0-9' -]*?)"
_FORMS = [
    re.compile(rf"what (?:does|do) {_THING} (?:mean|stand for)"),
    re.compile(rf"(?:define|explain|describe) {_THING}"),
    re.compile(rf"(?:what is )?the (?:definition|meaning) (?:of|for) {_THING}"),
    re.compile(rf"what (?:is|are) (?:meant by )?{_THING}"),
    re.compile(rf"what {_THING} means"),
]
_CLOSE = 0.86  # how alike a term and what was heard must be


class Define:
    name = "define"
    description = "Define a term of the glossary."
    parameters = schema(("term",), term={"type": "string", "minLength": 1, "maxLength": 200})
    examples = ("what does latency mean", "define jitter")

    def match(self, text: str, context: Context) -> Match | None:
        if not context.glossary:
            return None
        for form in _FORMS:
            found = form.fullmatch(text)
            term = _find(found["term"], context.glossary) if found else None
            if term:
                return Match({"term": term})
        return None

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        term = _find(arguments["term"].lower()[:200], context.glossary)
        if term is None:
            return "That is not in my glossary."
        return f"{term[0].upper()}{term[1:]}: {say.written(context.glossary[term])}"


def read_glossary(path: Path) -> Mapping[str, str]:
    """A JSON file {"term": "definition"}; terms in lower case.

    Raises:
        ConfigError: the file cannot be read or is something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f'{path}: need a JSON object {{"term": "definition"}}; {error}') from error
    if not isinstance(data, dict) or not all(isinstance(text, str) and text for text in data.values()):
        raise ConfigError(f'{path}: need a JSON object {{"term": "definition"}} with a text for each term')
    return {term.strip().lower(): text for term, text in data.items()}


def _find(said: str, glossary: Mapping[str, str]) -> str | None:
    if said in glossary:
        return said
    joined = {term.replace(" ", ""): term for term in glossary}  # a recogniser may join or part words
    near = difflib.get_close_matches(said.replace(" ", ""), joined, n=1, cutoff=_CLOSE)
    return joined[near[0]] if near else None
