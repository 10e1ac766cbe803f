"""Content words of a text, as retrieval and routing compare them: lower case, stems, no words that say nothing."""

from __future__ import annotations

import re
from functools import lru_cache

from snowballstemmer import stemmer

_IDLE = (
    "a an the this that these those it its is are was were be been am do does did doing have has had i me my "
    "mine you your yours we us our they them their he she his her of to in on at for from by with about into "
    "over under and or but if so then than as not no yes what which who whom whose when where why how can "
    "could will would shall should may might must please just there here some any say says said know want need "
    "like get got give let lets s t d ll re ve m up out"
)
IDLE = frozenset(_IDLE.split())


def content(text: str) -> list[str]:
    """The stems of the words that say something, in order."""
    return [stem(word) for word in re.findall(r"[a-z0-9]{1,40}", text.lower()) if word not in IDLE]


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    return _stemmer().stemWord(word)


@lru_cache(maxsize=1)
def _stemmer():  # type: ignore[no-untyped-def]
    return stemmer("english")
