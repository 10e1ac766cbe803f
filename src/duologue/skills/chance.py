"""Coins, dice and numbers at random."""

from __future__ import annotations

import re
from typing import Any

from duologue.skills import say
from duologue.skills.base import Context, Match, schema

_MOST_THROWS, _LARGEST = 20, 10**12
_VERB = r"(?:roll|throw|flip|toss|cast|do|give me|i want)"
_COIN = re.compile(
    rf"(?:{_VERB} (?:(\d+|an?|the|some) )?coins?(?: (?:flip|toss))?|heads or tails|{_VERB} (?:a )?coin (?:flip"
    rf"|toss)|coin (?:flip|toss))"
)
_DIE = re.compile(
    rf"{_VERB} (?:(\d+|an?|the|some|your) )?(?:(\d+) sided )?(?:di(?:e|c?e)|dices|d ?(\d+)s?)(?: with (\d+) sides)?"
)
_NUMBER = re.compile(
    r"(?:pick|choose|give me|say|think of|generate|tell me)?(?: me)? ?(?:a |any )?(?:random )?number (?:between"
    r"|from) (\d+) (?:and|to) (\d+)"
)


class Chance:
    name = "chance"
    description = "Flip coins, roll dice or pick a number at random."
    parameters = schema(
        ("what",),
        what={"type": "string", "enum": ["coin", "die", "number"]},
        count={"type": "integer", "minimum": 1, "description": "How many throws"},
        sides={"type": "integer", "minimum": 2, "description": "Of each die"},
        low={"type": "integer"},
        high={"type": "integer"},
    )
    examples = ("flip a coin", "roll two dice", "pick a number between one and ten")

    def match(self, text: str, context: Context) -> Match | None:
        if coin := _COIN.fullmatch(text):
            return Match({"what": "coin", "count": _count(coin[1])})
        if die := _DIE.fullmatch(text):
            sides = int((die[2] or die[3] or die[4] or "6")[:12])
            dice = 2 if die[1] in (None, "the", "some", "your") and " dice" in text else _count(die[1])
            return Match({"what": "die", "count": dice, "sides": sides}) if sides > 1 else None
        if number := _NUMBER.fullmatch(text):
            return Match({"what": "number", "low": int(number[1][:12]), "high": int(number[2][:12])})
        return None

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        count = arguments.get("count", 1)
        if count > _MOST_THROWS:
            return f"I can throw {say.cardinal(_MOST_THROWS)} at most."
        if arguments["what"] == "coin":
            return _sentence([context.rng.choice(["heads", "tails"]) for _ in range(count)])
        if arguments["what"] == "die":
            sides = arguments.get("sides", 6)
            if sides > _LARGEST:
                return "I have no die with that many sides."
            thrown = [context.rng.randint(1, sides) for _ in range(count)]
            total = f" That makes {say.cardinal(sum(thrown))}." if count > 1 else ""
            return _sentence([say.cardinal(value) for value in thrown]) + total
        low, high = sorted((arguments.get("low", 1), arguments.get("high", 100)))
        if max(abs(low), abs(high)) > _LARGEST:
            return "Those numbers are too large for me."
        return _sentence([say.cardinal(context.rng.randint(low, high))])


def _count(said: str | None) -> int:
    return max(int(said[:6]), 1) if said and said.isdigit() else 1


def _sentence(parts: list[str]) -> str:
    text = say.listing(parts)
    return f"{text[0].upper()}{text[1:]}."
