"""Written English to spoken English: numbers and symbols in words, and answers that can be said aloud.

What is said for units, currencies, abbreviations and symbols stands in prompts/spelling.json.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from duologue import numbers
from duologue.data.prompts import Prompts

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_MONTH = "|".join([*MONTHS, *(f"{month[:3]}\\.?" for month in MONTHS if len(month) > 4), r"Sept\.?"])
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALE = r"thousand|million|billion|trillion"
_RULERS = (
    "Henry|Louis|George|Charles|Edward|James|William|Elizabeth|Richard|John|Paul|Pius|Benedict|Philip|Peter|Catherine"
    "|Napoleon|Ramses|Alexander|Nicholas|Frederick|Francis"
)
_BEFORE_ROMAN = r"(?:World War|Chapter|Part|Volume|Act|Phase|Type|Super Bowl|Rocky|Section|Book|Class|Apollo)"
_UNITLESS = {"in", "a", "A", "s", "h", "m", "l", "L", "g", "V", "W"}  # too short to be read as units across a space


class SpokenText:
    """The rules of one folder of prompts, compiled.

    `spell_out` changes only what is not words yet, so it may be applied twice.
    """

    def __init__(self, prompts: Prompts | None = None):
        spelling = (prompts or Prompts()).spelling
        self.units: dict[str, list[str]] = spelling["units"]
        self.currencies: dict[str, list[str]] = spelling["currencies"]
        self.symbols: dict[str, str] = spelling["symbols"]
        self.abbreviations: dict[str, str] = spelling["abbreviations"]
        self._rules: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
            (re.compile(pattern), say) for pattern, say in self._ordered_rules()
        ]

    def spell_out(self, text: str) -> str:
        """Numbers, dates, times, money, units, abbreviations and symbols in words; one line, plain punctuation."""
        written = said = plain(text)
        for pattern, say in self._rules:
            said = pattern.sub(say, said)
        said = tidy(said)
        return said if written[:1].isalpha() else said[:1].upper() + said[1:]

    def _ordered_rules(self) -> list[tuple[str, Callable[[re.Match[str]], str]]]:
        money = "".join(re.escape(symbol) for symbol in self.currencies)
        units = sorted(self.units, key=len, reverse=True)
        joined = "|".join(re.escape(unit) for unit in units)
        apart = "|".join(re.escape(unit) for unit in units if unit not in _UNITLESS)
        short = sorted(self.abbreviations, key=len, reverse=True)
        return [
            (r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b", _address),
            (r"\b(?:https?://)?(?:www\.)?[a-zA-Z][\w-]*(?:\.[\w-]+)*\.(?:com|org|net|edu|gov|io)\b(?:/\S*)?", _address),
            (rf"\b({_MONTH})\s+(\d{{1,2}})(?:st|nd|rd|th)?,?\s+(\d{{4}})\b", _month_day_year),
            (rf"\b({_MONTH})\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)", _month_day),
            (rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?({_MONTH})\s+(\d{{4}})\b", _day_month_year),
            (rf"\b(\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?({_MONTH})(?![\w])", _day_month),
            (r"\b(\d{4})-(\d{2})-(\d{2})\b", _iso_date),
            (rf"\b({_MONTH})\s+(\d{{4}})\b", lambda m: f"{_month(m[1])} {numbers.year(int(m[2]))}"),
            (r"\b(\d{1,2}):(\d{2})(?::\d{2})?\s*([ap])\.?\s?m\b\.?", _clock),
            (r"\b([01]?\d|2[0-3]):([0-5]\d)\b", _clock),
            (r"\b(1[0-2]|[1-9])\s*([ap])\.?m\b\.?", lambda m: f"{numbers.cardinal(int(m[1]))} {m[2]} m"),
            (rf"({'|'.join(map(re.escape, short))})(?=$|[\s,;:?!)])", self._abbreviation),
            (rf"([{money}])\s?({_NUMBER})(?:\s?({_SCALE}|[KMB])\b)?", self._money),
            (rf"({_NUMBER})\s?%", lambda m: f"{numbers.decimal(m[1])} percent"),
            (r"\b(\d{3})[-. ](\d{3})[-. ](\d{4})\b", lambda m: ", ".join(numbers.digits(part) for part in m.groups())),
            (r"\b(\d{3}0)'?s\b", lambda m: numbers.decade(int(m[1]))),
            (r"\b(\d0)s\b", lambda m: _plural(numbers.cardinal(int(m[1])))),
            (r"\b(1\d{3}|20\d\d)\s-\s(1\d{3}|20\d\d)\b", _range),
            (rf"({_NUMBER})-({_NUMBER})(?=\s|$|[,.?!;:a-zA-Z%])", _range),
            (rf"(?<![\w.])(-?)({_NUMBER})(?:({joined})|\s({apart}))(?![\w/])", self._measure),
            (r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", lambda m: numbers.ordinal(int(m[1].replace(",", "")))),
            (r"\b(\d{1,2})/(\d{1,2})\b(?!/)", _fraction),
            (r"\b([A-Za-z0-9]+)\^(\d+)\b", _power),
            (r"(?<=\d)\s*[x×*]\s*(?=\d)", lambda m: " times "),
            (r"(?<=\d)\s*/\s*(?=\d)", lambda m: " divided by "),
            (r"(?<=\d)\s+[-−]\s+(?=\d)", lambda m: " minus "),
            (rf"\b({_RULERS}) ([IVX]+)\b", lambda m: _numbered(m, "the ", numbers.ordinal)),
            (rf"\b({_BEFORE_ROMAN}) ([IVX]+)\b", lambda m: _numbered(m, "", numbers.cardinal)),
            (r"\b(in|since|by|from|until|before|after|year|of|around|to|and) (1[1-9]\d\d|20\d\d)\b(?![,.]\d)", _year),
            (r"(?<![\d,.$])\b(1[1-9]\d\d|20[0-4]\d)\b(?![,.]?\d)", lambda m: numbers.year(int(m[1]))),
            (rf"(?<![\w.])[-−]({_NUMBER})", lambda m: f"minus {numbers.decimal(m[1])}"),
            (rf"({_NUMBER})\s+({_SCALE})\b", lambda m: f"{numbers.decimal(m[1])} {m[2]}"),
            (r"([A-Za-z])-?(\d+)\b", lambda m: f"{m[1]} {numbers.decimal(m[2])}"),
            (rf"({_NUMBER})", lambda m: f" {numbers.decimal(m[1])} "),
            (f"[{''.join(map(re.escape, self.symbols))}]", lambda m: f" {self.symbols[m[0]]} "),
        ]

    def _abbreviation(self, match: re.Match[str]) -> str:
        start = match.start()
        if start and (match.string[start - 1].isalnum() or match.string[start - 1] == "."):
            return match[0]
        number_follows = re.match(r"\s*\d", match.string[match.end() :])
        return match[0] if match[1] == "No." and not number_follows else self.abbreviations[match[1]]

    def _money(self, match: re.Match[str]) -> str:
        one, many, cent, cents = self.currencies[match[1]]
        amount = match[2].replace(",", "")
        scale = {"K": "thousand", "M": "million", "B": "billion"}.get(match[3] or "", match[3])
        if scale:
            return f"{numbers.decimal(amount)} {scale} {many}"
        whole, _, part = amount.partition(".")
        said = f"{numbers.cardinal(int(whole))} {one if int(whole) == 1 else many}"
        small = int((part + "0")[:2]) if part else 0
        if not small or not cent:
            return said
        coins = f"{numbers.cardinal(small)} {cent if small == 1 else cents}"
        return coins if int(whole) == 0 else f"{said} and {coins}"

    def _measure(self, match: re.Match[str]) -> str:
        one, many = self.units[match[3] or match[4]]
        sign = "minus " if match[1] else ""
        return f"{sign}{numbers.decimal(match[2])} {one if match[2] == '1' else many}"


def plain(text: str) -> str:
    """Typographic characters to plain ones, no accents, no emoji, no control characters, one line."""
    swaps = {"‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "—": ", ", "–": "-", "\u00a0": " ", "\u200b": ""}
    kept = "°£€¥₹×÷½¼¾²³π√≈≤≥−→"
    out = []
    for char in text:
        char = swaps.get(char, char)
        if ord(max(char, default=" ")) > 127 and char not in kept:
            char = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
        out.append(char)
    return re.sub(r"\s+", " ", "".join(out)).strip()


def tidy(text: str) -> str:
    """One space between words, none before punctuation, no empty or doubled punctuation."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,.;:?!])", r"\1", text)
    text = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", text)
    text = re.sub(r"[,;:]\s*([.?!])", r"\1", text)
    return text.strip(" ,;:")


def key_of(text: str) -> str:
    """What two texts share if they are the same question: lower-case words, numbers spelled, no punctuation."""
    return " ".join(re.findall(r"[a-z]+", _default_rules().spell_out(text).lower().replace("'", "")))


@lru_cache(maxsize=1)
def _default_rules() -> SpokenText:
    return SpokenText()


def sentences(text: str) -> list[str]:
    """Cuts at . ? ! that end a sentence, their marks kept."""
    return [part.strip() for part in re.findall(r".+?(?:[.?!]+[\"')]*(?=\s+[A-Z\"']|\s*$)|$)", text) if part.strip()]


def with_fillers(
    text: str, rng: np.random.Generator, *, fillers: list[str], chance: float, endings: list[str], ending_chance: float
) -> str:
    """Puts what people say while they think before a question, and now and then a word behind it."""
    before, after, which, ending = rng.random(), rng.random(), rng.integers(1 << 30), rng.integers(1 << 30)
    if endings and after < ending_chance and text.endswith("?"):
        text = f"{text[:-1]}, {endings[int(ending) % len(endings)]}?"
    if fillers and before < chance:
        filler = fillers[int(which) % len(fillers)]
        first = text.split(" ")[0]
        name = (
            first in ("I", "I'm", "I'd", "I've", "I'll") or not first[1:].islower() or filler.endswith((".", "?", "!"))
        )
        text = f"{filler} {text if name else text[0].lower() + text[1:]}"
    return text


def speakable(text: str, *, most_sentences: int, spell: Callable[[str], str] = plain) -> str:
    """An answer without what cannot be said: markup, list marks, brackets, quotes; its first sentences.

    Args:
        spell: what is done to the text before sentences are counted, such as `SpokenText.spell_out`.
    """
    text = re.sub(r"```.*?(```|$)", " ", text, flags=re.S)
    text = re.sub(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+", "", text, flags=re.M)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\s*[\[({][^\])}]*[\])}]", "", text)
    text = tidy(spell(re.sub(r"[*_`#~|\"“”]+", "", text)))
    kept = sentences(text)[:most_sentences]
    if len(kept) > 1 and not kept[-1].endswith((".", "?", "!")):
        kept.pop()
    text = " ".join(kept)
    return text if not text or text.endswith((".", "?", "!")) else text + "."


def _address(match: re.Match[str]) -> str:
    text = re.sub(r"^(https?://)?(www\.)?", "", match[0]).rstrip("/")
    for mark, word in ((".", "dot"), ("@", "at"), ("/", "slash"), ("-", "dash"), ("_", "underscore")):
        text = text.replace(mark, f" {word} ")
    return text


def _month(text: str) -> str:
    return next(month for month in MONTHS if month.startswith(text[:3]))


def _day(text: str) -> str:
    return numbers.ordinal(int(text))


def _month_day_year(match: re.Match[str]) -> str:
    return f"{_month(match[1])} {_day(match[2])}, {numbers.year(int(match[3]))}"


def _month_day(match: re.Match[str]) -> str:
    return f"{_month(match[1])} {_day(match[2])}"


def _day_month_year(match: re.Match[str]) -> str:
    return f"the {_day(match[1])} of {_month(match[2])} {numbers.year(int(match[3]))}"


def _day_month(match: re.Match[str]) -> str:
    return f"{_day(match[1])} of {_month(match[2])}"


def _iso_date(match: re.Match[str]) -> str:
    if not 1 <= int(match[2]) <= 12 or not 1 <= int(match[3]) <= 31:
        return match[0]
    return f"{MONTHS[int(match[2]) - 1]} {_day(match[3])}, {numbers.year(int(match[1]))}"


def _clock(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    half = f" {match[3].lower()} m" if match.lastindex == 3 else ""
    if minute == 0:
        return f"{numbers.cardinal(hour)}{half or ' o clock' if hour <= 12 else ' hundred hours'}"
    return f"{numbers.cardinal(hour)} {'oh ' if minute < 10 else ''}{numbers.cardinal(minute)}{half}"


def _range(match: re.Match[str]) -> str:
    first, last = match[1], match[2]
    if len(first) == len(last) == 4 and first.isdigit() and last.isdigit():
        return f"{numbers.year(int(first))} to {numbers.year(int(last))}"
    return f"{first} to {last}"


def _fraction(match: re.Match[str]) -> str:
    top, bottom = int(match[1]), int(match[2])
    if not 0 < top < bottom:
        return match[0]
    name = {2: "half", 4: "quarter"}.get(bottom) or numbers.ordinal(bottom)
    return f"{numbers.cardinal(top)} {name if top == 1 else 'halves' if bottom == 2 else name + 's'}"


def _power(match: re.Match[str]) -> str:
    power = {"2": "squared", "3": "cubed"}.get(match[2]) or f"to the power of {numbers.cardinal(int(match[2]))}"
    return f"{match[1]} {power}"


def _plural(words: str) -> str:
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def _numbered(match: re.Match[str], article: str, say: Callable[[int], str]) -> str:
    value = numbers.roman(match[2])
    return f"{match[1]} {article}{say(value)}" if value else match[0]


def _year(match: re.Match[str]) -> str:
    return f"{match[1]} {numbers.year(int(match[2]))}"
