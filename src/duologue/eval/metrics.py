"""The numbers of an evaluation: errors of words and letters, ROUGE-L, percentiles, confidence intervals.

Texts are compared after Whisper's English normaliser (numbers, spelling, fillers, case), as the field does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from duologue.errors import DataError

Item = TypeVar("Item")
TRAIN_EXTRA = 'install the scoring packages with: pip install "duologue[train]"'


@dataclass(frozen=True)
class Edits:
    """How far one text is from another: substitutions, insertions and deletions against the reference's length."""

    edits: int
    length: int


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float


@functools.lru_cache(maxsize=1)
def _normaliser() -> Callable[[str], str]:
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise DataError(f"whisper-normalizer is missing; {TRAIN_EXTRA}") from error
    return EnglishTextNormalizer()


def normalise(text: str) -> str:
    """The text as it is compared: Whisper's English normaliser, spaces trimmed."""
    return _normaliser()(text).strip()


def word_edits(reference: str, hypothesis: str) -> Edits:
    """Word errors after normalising. An empty reference counts each word of the hypothesis as one insertion."""
    return _edits(normalise(reference).split(), normalise(hypothesis).split())


def character_edits(reference: str, hypothesis: str) -> Edits:
    """Letter errors after normalising, spaces included."""
    return _edits(list(normalise(reference)), list(normalise(hypothesis)))


def _edits(reference: list[str], hypothesis: list[str]) -> Edits:
    if not reference or not hypothesis:
        return Edits(len(reference) + len(hypothesis), len(reference))
    try:
        from rapidfuzz.distance import Levenshtein  # jiwer's own engine; jiwer itself refuses lists of letters
    except ImportError as error:
        raise DataError(f"rapidfuzz is missing; {TRAIN_EXTRA}") from error
    return Edits(int(Levenshtein.distance(reference, hypothesis)), len(reference))


def error_rate(edits: Sequence[Edits]) -> float:
    """Errors over the length of all references together (not the mean of each text's rate)."""
    length = sum(each.length for each in edits)
    return sum(each.edits for each in edits) / length if length else 0.0


def rouge_l(reference: str, candidate: str) -> float:
    """ROUGE-L F-measure (Lin 2004) of one pair, tokens being runs of a-z and 0-9 in lower case, no stemming.

    Two texts without tokens are equal (1.0): an answer that is rightly empty is right.
    """
    truth, guess = (re.findall(r"[a-z0-9]+", text.lower()) for text in (reference, candidate))
    if not truth or not guess:
        return float(truth == guess)
    common = _longest_common_subsequence(truth, guess)
    precision, recall = common / len(guess), common / len(truth)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def _longest_common_subsequence(first: list[str], second: list[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, start=1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]


def exact_match(reference: str, candidate: str) -> bool:
    """Equal after normalising."""
    return normalise(reference) == normalise(candidate)


def contains_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether any accepted answer stands in the text as whole words, both normalised."""
    padded = f" {normalise(text)} "
    return any(f" {normalise(answer)} " in padded for answer in answers)


def count_words(text: str) -> int:
    """Words that carry at least one letter or digit."""
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile with linear interpolation; not a number when there are no values."""
    return float(np.percentile(np.asarray(values, dtype=float), percent)) if len(values) else float("nan")


def bootstrap(
    items: Sequence[Item],
    statistic: Callable[[list[Item]], float],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The statistic over all items and its percentile-bootstrap interval, drawing items with replacement.

    Raises:
        DataError: there are no items.
    """
    if not items:
        raise DataError("bootstrap: need at least one item, got none; the test set is empty")
    generator = np.random.default_rng(seed)
    draws = [
        statistic([items[index] for index in generator.integers(0, len(items), len(items))]) for _ in range(resamples)
    ]
    low, high = np.percentile(draws, [50 * (1 - confidence), 50 * (1 + confidence)])
    return Interval(float(statistic(list(items))), float(low), float(high))


def mean(values: Sequence[float]) -> float:
    """The mean as a plain float."""
    return float(np.mean(np.asarray(values, dtype=float)))
