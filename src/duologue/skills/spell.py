"""Spelling: a word letter by letter."""

from __future__ import annotations

import re
from typing import Any

from duologue.skills import say
from duologue.skills.base import Context, Match, schema

_WORD = r"(?P<word>[a-z][a-z' ]*?)"
_FORMS = [
    re.compile(rf"(?:(?:how do (?:you|i|we)|how to) spell|spell(?: out)?|spelling of)(?: the (?:word|name))? {_WORD}"),
    re.compile(rf"how (?:is|do you write)(?: the (?:word|name))? {_WORD} (?:spelled|spelt|written)"),
    re.compile(rf"(?:what is |give me )?the (?:correct |right )?spelling (?:of|for)(?: the (?:word|name))? {_WORD}"),
]
_MOST_WORDS, _MOST_LETTERS = 2, 30


class Spell:
    name = "spell"
    description = "Spell a word letter by letter."
    parameters = schema(("word",), word={"type": "string", "minLength": 1, "maxLength": 600})
    examples = ("how do you spell necessary", "spell rhythm")

    def match(self, text: str, context: Context) -> Match | None:
        found = next((match for form in _FORMS if (match := form.fullmatch(text))), None)
        if not found or len(found["word"].split()) > _MOST_WORDS:
            return None
        return Match({"word": found["word"]})

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        word = arguments["word"].strip()
        letters = [_letter(char) for char in word if not char.isspace()]
        if not any(char.isalnum() for char in word):
            return "There is nothing to spell."
        if len(letters) > _MOST_LETTERS:
            return "That is too long to spell."
        return f"{word[0].upper()}{word[1:]} is spelled: {', '.join(letters)}."


def _letter(char: str) -> str:
    if char.isdecimal():
        return say.digit_by_digit(char)
    return {"'": "apostrophe", "-": "hyphen"}.get(char, char.upper())
