"""ABX: whether features tell two sounds of speech apart (Schatz et al. 2013, as in the ZeroSpeech challenges).

A and X are the same triphone said twice, B differs from it in the middle phone. A triple counts as an error where X is
nearer to B than to A, as half of one where both are as near. The distance of two pieces is the mean cosine distance
along the cheapest alignment of their frames. The rate is the mean over pairs of triphones, so that frequent ones do not
decide alone. Within: one voice says all three. Across: another voice says X.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duologue.errors import DataError

Array = np.ndarray
MOST = 3  # tokens of a triphone by a voice


@dataclass(frozen=True)
class Token:
    """A triphone as it was said once."""

    phones: tuple[str, str, str]
    voice: str
    frames_TD: Array  # its features


def tokens(phones: Sequence[tuple[str, float, float]], features_TD: Array, *, rate: float, voice: str) -> list[Token]:
    """The triphones of an utterance with the frames whose middle lies in them, at least one.

    Args:
        phones: symbol, start and end in seconds.
        rate: frames a second.
    """
    found = []
    for before, middle, after in zip(phones, phones[1:], phones[2:], strict=False):
        first = int(np.ceil(before[1] * rate - 0.5))
        last = max(int(np.ceil(after[2] * rate - 0.5)), first + 1)
        if last <= len(features_TD):
            name = (before[0], middle[0], after[0])
            found.append(Token(name, voice, features_TD[first:last]))
    return found


def distance(a_TD: Array, b_TD: Array) -> float:
    """Mean cosine distance along the cheapest alignment."""
    norms = np.linalg.norm(a_TD, axis=1)[:, None] * np.linalg.norm(b_TD, axis=1)[None]
    costs = 1 - (a_TD @ b_TD.T) / np.maximum(norms, 1e-9)
    total = np.full((len(a_TD) + 1, len(b_TD) + 1), np.inf)
    steps = np.zeros_like(total)
    total[0, 0] = 0
    for i, j in itertools.product(range(len(a_TD)), range(len(b_TD))):
        ways = ((i, j), (i, j + 1), (i + 1, j))
        way = min(ways, key=lambda way: total[way])
        total[i + 1, j + 1], steps[i + 1, j + 1] = total[way] + costs[i, j], steps[way] + 1
    return float(total[-1, -1] / steps[-1, -1])


def error_rates(found: Sequence[Token], *, across: bool, seed: int = 0) -> list[float]:
    """The error rate of each pair of triphones that differ in the middle phone, both orders of it apart.

    Raises:
        DataError: there is no such pair.
    """
    rng = np.random.default_rng(seed)
    said: dict[tuple[str, str], dict[str, dict[str, list[Token]]]] = defaultdict(lambda: defaultdict(dict))
    for token in found:
        before, middle, after = token.phones
        said[before, after][middle].setdefault(token.voice, []).append(token)
    rates = []
    for context in sorted(said):
        for a, b in itertools.permutations(sorted(said[context]), 2):
            wrong = list(_triples(said[context][a], said[context][b], across=across, rng=rng))
            if wrong:
                rates.append(float(np.mean(wrong)))
    if not rates:
        raise DataError("abx: no two triphones that differ in the middle phone only; take more sentences or voices")
    return rates


def _triples(a: dict[str, list[Token]], b: dict[str, list[Token]], *, across: bool, rng: Any) -> Any:
    """The error of each triple of two triphones: 0, a half or 1."""
    for voice, other in itertools.product(sorted(a.keys() & b.keys()), sorted(a)):
        if across == (voice == other):
            continue
        of_a, of_b, of_x = (_some(part, rng) for part in (a[voice], b[voice], a[other]))
        for x in of_x:
            to_a = [distance(each.frames_TD, x.frames_TD) for each in of_a if each is not x]
            to_b = [distance(each.frames_TD, x.frames_TD) for each in of_b]
            yield from (0.5 * (1 + np.sign(one - two)) for one in to_a for two in to_b)


def _some(found: list[Token], rng: Any) -> list[Token]:
    return found if len(found) <= MOST else [found[i] for i in sorted(rng.choice(len(found), MOST, replace=False))]
