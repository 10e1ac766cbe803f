"""Conversion between units of measure."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from duologue.skills import say
from duologue.skills.base import Context, Match, schema
from duologue.skills.unit_table import NAMES, ZERO, Unit, called, units
from duologue.skills.words import NUMBER, number

_LARGEST = 10**18


class ConvertUnits:
    name = "convert_units"
    description = "Convert an amount from one unit of measure to another."
    parameters = schema(
        ("amount", "unit", "to"),
        amount={"type": "number"},
        unit={"type": "string", "enum": NAMES},
        to={"type": "string", "enum": NAMES},
    )
    examples = ("how many kilometers is five miles", "convert seventy degrees Fahrenheit to Celsius")

    def match(self, text: str, context: Context) -> Match | None:
        found = next((match for form in _forms() if (match := form.fullmatch(text))), None)
        return _read(found["said"], found["to"]) if found else None

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        source, target = units()[arguments["unit"]], units()[arguments["to"]]
        amount = Fraction(str(arguments["amount"]))
        if abs(amount) > _LARGEST:
            return "That number is too large for me."
        if source.kind != target.kind:
            return f"I cannot convert {source.many} to {target.many}."
        said = _said(amount, source)
        if source.kind == "temperature":
            kelvin = amount * source.size + ZERO[source.name]
            if kelvin < 0:
                return "There is no such temperature: that is below absolute zero."
            result = Fraction(round((kelvin - ZERO[target.name]) / target.size * 10), 10)
        else:
            result = amount * source.size / target.size
        text = f"{said} {'is' if abs(amount) == 1 else 'are'} {_said(result, target)}."
        return text[0].upper() + text[1:]


def _said(amount: Fraction, unit: Unit) -> str:
    one = unit.many.replace("degrees", "degree") if unit.kind == "temperature" else unit.name
    return f"{say.decimal(amount)} {one if abs(amount) == 1 else unit.many}"


def _read(said: str, to: str) -> Match | None:
    target = units()[called()[to]]
    parts = [(Fraction(value or 1), units()[called()[name]]) for value, name in _one().findall(said)]
    kinds = {unit.kind for _, unit in parts} | {target.kind}
    if target.name == "ounce" and "volume" in kinds:
        target = units()["fluid ounce"]
    elif target.kind == "volume":
        parts = [(value, units()["fluid ounce"] if unit.name == "ounce" else unit) for value, unit in parts]
    smallest = parts[-1][1]
    amount = sum((value * unit.size for value, unit in parts), Fraction(0)) / smallest.size  # six feet two inches
    amount = -amount if said.startswith(("minus", "-")) else amount
    same = smallest.kind == target.kind
    arguments = {"amount": _number(amount), "unit": smallest.name, "to": target.name}
    return Match(arguments, 0.95 if same else 0.8)


def _number(amount: Fraction) -> int | float:
    try:
        return number(str(float(amount)))
    except OverflowError:
        return number("1e300")


@lru_cache(maxsize=1)
def _alternatives() -> str:
    return "|".join(re.escape(name) for name in sorted(called(), key=len, reverse=True))


@lru_cache(maxsize=1)
def _one() -> re.Pattern[str]:
    return re.compile(rf"(?:({NUMBER})|\b(?:a|an|one)) ?(?:degrees? )?({_alternatives()})\b")


@lru_cache(maxsize=1)
def _forms() -> list[re.Pattern[str]]:
    one = rf"(?:{NUMBER}|an?|one) ?(?:degrees? )?(?:{_alternatives()})\b"
    said = rf"(?P<said>(?:minus |- ?)?{one}(?: (?:and )?{one})*)"
    to = rf"(?:degrees? )?(?P<to>{_alternatives()})"
    ask = (
        r"(?:how (?:much|many|hot|cold|long|far|heavy|fast|tall) (?:is|are)|what (?:is|are|about)|convert|change|turn)"
    )
    link = r"(?:in|to|into|as|converted to|equals how many|is how many|are how many|is what in)"
    return [
        re.compile(
            rf"how (?:many|much) {to} (?:are there|is there|is|are|do you get|make|make up|fit)(?: in| into"
            rf"| to)? {said}"
        ),
        re.compile(rf"(?:{ask} )?{said} {link} {to}"),
    ]
