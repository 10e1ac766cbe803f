"""Conversion between currencies with a table that is given, never a guessed rate."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError
from duologue.skills import say
from duologue.skills.base import Context, Match, schema
from duologue.skills.words import NUMBER, number

# Code: one, many, a hundredth, hundredths, what else it is called. A name that two share goes to the first.
_NAMES: dict[str, tuple[str, str, str, str, str]] = {
    "USD": ("dollar", "dollars", "cent", "cents", "us dollar,american dollar,buck,$"),
    "EUR": ("euro", "euros", "cent", "cents", "€"),
    "GBP": ("pound", "pounds", "penny", "pence", "british pound,pound sterling,quid,£"),
    "JPY": ("yen", "yen", "", "", "japanese yen,¥"),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes", "franc"),
    "CAD": ("Canadian dollar", "Canadian dollars", "cent", "cents", ""),
    "AUD": ("Australian dollar", "Australian dollars", "cent", "cents", ""),
    "NZD": ("New Zealand dollar", "New Zealand dollars", "cent", "cents", ""),
    "INR": ("rupee", "rupees", "paisa", "paise", "indian rupee"),
    "CNY": ("yuan", "yuan", "fen", "fen", "chinese yuan,renminbi"),
    "KRW": ("won", "won", "", "", "korean won"),
    "SEK": ("Swedish krona", "Swedish kronor", "ore", "ore", "swedish crown"),
    "NOK": ("Norwegian krone", "Norwegian kroner", "ore", "ore", "norwegian crown"),
    "DKK": ("Danish krone", "Danish kroner", "ore", "ore", "danish crown"),
    "PLN": ("zloty", "zloty", "grosz", "groszy", "polish zloty"),
    "CZK": ("Czech koruna", "Czech koruny", "", "", "czech crown"),
    "MXN": ("peso", "pesos", "centavo", "centavos", "mexican peso"),
    "BRL": ("real", "reais", "centavo", "centavos", "brazilian real"),
    "TRY": ("lira", "lira", "kurus", "kurus", "turkish lira"),
    "ZAR": ("rand", "rand", "cent", "cents", "south african rand"),
}
_LARGEST = 10**15


class Currency:
    name = "convert_currency"
    description = "Convert an amount of money from one currency to another."
    parameters = schema(
        ("amount", "currency", "to"),
        amount={"type": "number", "minimum": 0},
        currency={"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217 code"},
        to={"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217 code"},
    )
    examples = ("how much is fifty dollars in euros", "convert two hundred pounds to yen")

    def match(self, text: str, context: Context) -> Match | None:
        found = next((match for form in _forms() if (match := form.fullmatch(text))), None)
        if not found:
            return None
        codes, amount = called(), re.search(NUMBER, found["said"])
        name = re.sub(rf"{NUMBER}|\b(?:an?|one|worth of)\b", "", found["said"]).strip()
        return Match(
            {"amount": number(amount[0] if amount else "1"), "currency": codes[name], "to": codes[found["to"]]}
        )

    def answer(self, arguments: dict[str, Any], context: Context) -> str:
        if not context.rates:
            return "I have no exchange rates."
        source, target = arguments["currency"], arguments["to"]
        for code in (source, target):
            if code not in context.rates:
                return f"I have no exchange rate for {_many(code)}."
        amount = Fraction(str(arguments["amount"]))
        if amount > _LARGEST:
            return "That is more money than I can count."
        result = amount / Fraction(str(context.rates[source])) * Fraction(str(context.rates[target]))
        cents = round(result * 100)
        said = money(round(amount * 100), source)
        return f"{said[0].upper()}{said[1:]} {'is' if amount == 1 else 'are'} about {money(cents, target)}."


def money(cents: int, code: str) -> str:
    """12345, USD -> one hundred twenty-three dollars and forty-five cents."""
    one, many, cent, hundredths, _ = _NAMES.get(code, (_letters(code), _letters(code), "", "", ""))
    if not cent or cents >= 10**8:
        return say.count(round(cents / 100), one, many)
    whole, part = divmod(cents, 100)
    parts = [say.count(whole, one, many)] if whole or not part else []
    return " and ".join([*parts, *([say.count(part, cent, hundredths)] if part else [])])


def read_rates(path: Path) -> Mapping[str, float]:
    """A table of rates: JSON {"base": "EUR", "rates": {"USD": 1.1}}, or CSV with the columns currency and rate.

    A rate is what one unit of the base is worth; in a CSV file the base is the currency whose rate is 1.

    Raises:
        ConfigError: the file cannot be read, or holds no rates.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            data = json.loads(text)
            rates = {data["base"]: 1.0, **data["rates"]}
        else:
            rates = {row["currency"]: row["rate"] for row in csv.DictReader(text.splitlines())}
        table = {str(code).strip().upper(): float(rate) for code, rate in rates.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f'{path}: need rates as {{"base": "EUR", "rates": {{"USD": 1.1}}}} or CSV with currency,rate; {error!r}'
        ) from error
    wrong = [code for code, rate in table.items() if not re.fullmatch("[A-Z]{3}", code) or not 0 < rate < math.inf]
    if wrong or not table:
        raise ConfigError(f"{path}: need three-letter codes with rates above zero, got {', '.join(wrong) or 'none'}")
    return table


def _many(code: str) -> str:
    return _NAMES[code][1] if code in _NAMES else _letters(code)


def _letters(code: str) -> str:
    return " ".join(code)


@lru_cache(maxsize=1)
def called() -> Mapping[str, str]:
    """Everything that a currency is called, to its code."""
    names: dict[str, str] = {}
    for code, (one, many, _, _, others) in _NAMES.items():
        for name in (one, many, *others.split(","), *(f"{other}s" for other in others.split(",")), code):
            if name and name != "s":
                names.setdefault(name.lower(), code)
    return names


@lru_cache(maxsize=1)
def _forms() -> list[re.Pattern[str]]:
    names = "|".join(re.escape(name) for name in sorted(called(), key=len, reverse=True))
    said = rf"(?P<said>(?:(?:{NUMBER}|an?|one) )?(?:worth of )?(?:{names})(?: {NUMBER})?)"
    to = rf"(?P<to>{names})"
    ask = r"(?:how much (?:is|are)|what (?:is|are|about)|what would|convert|exchange|change|turn|how much would)"
    return [
        re.compile(
            rf"how (?:many|much) {to} (?:is|are|do i get for|do you get for|would i get for|can i get for|for"
            rf"|in|are in|are there in) {said}"
        ),
        re.compile(rf"(?:{ask} )?{said} (?:(?:be|worth|worth in) )?(?:in|to|into|for) {to}"),
    ]
