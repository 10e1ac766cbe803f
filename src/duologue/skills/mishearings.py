"""What a request may have been before it was misheard: words put in the place of others that sound alike.

Two words are alike by their sounds (Metaphone, Philips 1990) and, less, by their letters. Only words are put in that
our own skills ask for, and a grammar has to read the whole request afterwards: what is no request hardly becomes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import jellyfish

from duologue import numbers
from duologue.skills import currency, unit_table
from duologue.skills.dates import WEEKDAYS
from duologue.skills.text_words import IDLE, stem
from duologue.skills.words import MONTHS, clean, request

ALIKE = 0.77  # of 1, from which a word is taken for another
_ALIKE_TWO = 0.8  # ... two words for one
_SMALL = 0.85  # how alike little words count: they are hardly spoken
_MOST_WORDS = 16  # of a request that is looked into
_MOST = 24  # readings
_LITTLE = {
    "in": ("an", "and"),
    "on": ("an", "and"),
    "an": ("in", "and"),
    "and": ("an", "in"),
    "a": ("the",),
    "the": ("a",),
    "to": ("two",),
    "too": ("two",),
    "for": ("four", ""),
    "of": ("off",),
    "off": ("of",),
    "ate": ("eight",),
    "won": ("one",),
    "our": ("hour",),
    "at": ("add", ""),
}
_ASKED = (
    "time date day days week weeks month months year today tomorrow yesterday until since between "
    "timer alarm reminder countdown set start cancel stop delete remind wake noon midnight morning evening "
    "second seconds minute minutes hour hours half quarter convert "
    "calculate plus minus times divided multiplied percent square root squared add subtract multiply "
    "spell spelled spelling define definition meaning mean word "
    "flip toss coin roll throw dice die random number pick heads tails"
)


def readings(text: str, more: Iterable[str] = ()) -> list[tuple[str, float]]:
    """Other readings of a request, one word changed in each, and how alike it sounds, 0 to 1; the likeliest first.

    Args:
        more: words that may be asked for, beside those of the skills.
    """
    words = re.findall(r"[a-z0-9$€£¥][a-z0-9'.,:%]*", clean(text).lower())
    words = [word.rstrip(".,:") for word in words]
    if not 1 < len(words) <= _MOST_WORDS:
        return []
    known = {**_known(), **{word: _key(word) for word in more}}
    counted = any(word[0].isdigit() for word in request(" ".join(words)).split())
    found: dict[str, float] = {}
    for begin in range(len(words)):
        for count in (1, 2):
            span = words[begin : begin + count]
            said = "".join(span).replace("'", "")
            if begin + count > len(words) or len(said) < 3 * count or not said.isalpha():
                continue
            common = any(word in known or word in _LITTLE for word in span)
            if count == 2 and (common or any(word in IDLE for word in span)):
                continue
            for word, likeness in _near(said, known):
                # What makes sense by itself is left alone, unless the request is of a number: "what is time"
                if likeness >= (ALIKE if count == 1 else _ALIKE_TWO) and (
                    not common or counted or stem(word) == stem(said)
                ):
                    _put(found, words, begin, count, word, likeness)
        for word in _LITTLE.get(words[begin], ()):
            _put(found, words, begin, 1, word, _SMALL)
        if words[begin : begin + 2] in (["to", "a"], ["too", "a"]):  # two hundred
            _put(found, words, begin, 2, "two", _SMALL)
    return sorted(found.items(), key=lambda each: -each[1])[:_MOST]


def _put(found: dict[str, float], words: list[str], begin: int, count: int, word: str, likeness: float) -> None:
    reading = " ".join([*words[:begin], *([word] if word else []), *words[begin + count :]])
    found[reading] = max(found.get(reading, 0.0), likeness)


def _near(said: str, known: Mapping[str, str]) -> list[tuple[str, float]]:
    """Known words that sound like what was heard, and how much so."""
    key = _key(said)
    found = []
    for word, other in known.items():
        if word != said and other[:1] == key[:1]:
            apart = jellyfish.levenshtein_distance(key, other) / max(len(key), len(other), 1)
            likeness = 0.6 * (1 - apart) + 0.4 * jellyfish.jaro_winkler_similarity(said, word)
            if likeness >= ALIKE:
                found.append((word, likeness))
    return found


@lru_cache(maxsize=4_096)
def _key(word: str) -> str:
    return str(jellyfish.metaphone(word))


@lru_cache(maxsize=1)
def _known() -> Mapping[str, str]:
    """The words that our skills ask for, and how each sounds."""
    units = (word for name in unit_table.called() for word in name.split())
    monies = (word for name, code in currency.called().items() if name != code.lower() for word in name.split())
    counted = [*numbers.ONES, *filter(None, numbers.TENS), "hundred", *filter(None, numbers.SCALES[:4])]
    words = {*_ASKED.split(), *MONTHS, *WEEKDAYS, *units, *monies, *counted}
    return {word: _key(word) for word in sorted(words) if word.isalpha() and len(word) > 2}
