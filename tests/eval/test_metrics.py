"""Scores mean what the field means by them."""

import numpy as np
import pytest

from duologue.errors import DataError
from duologue.eval import metrics
from duologue.eval.metrics import Edits


def test_words_are_compared_after_normalising():
    assert metrics.word_edits("It's twenty-five dollars, Mr. Brown.", "it is $25 mister brown").edits == 0


def test_word_errors_count_substitutions_insertions_and_deletions():
    assert metrics.word_edits("the cat sat on the mat", "the cat sit on mat now") == Edits(3, 6)


def test_words_heard_where_nothing_was_said_are_errors():
    assert metrics.word_edits("", "thank you") == Edits(2, 0)
    assert metrics.word_edits("hello there", "") == Edits(2, 2)


def test_character_errors_count_letters():
    assert metrics.character_edits("hello", "hallo") == Edits(1, 5)


def test_error_rate_weighs_texts_by_their_length():
    assert metrics.error_rate([Edits(1, 1), Edits(0, 9)]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("testing one two", "testing", 0.5),  # recall 1/3, precision 1: the example of the rouge_score package
        ("a b c d", "b d", 2 * 1.0 * 0.5 / 1.5),
        ("the police killed the gunman", "the gunman killed the police", 0.6),
        ("Hello, World!", "hello world", 1.0),
        ("", "", 1.0),
        ("", "word", 0.0),
        ("abc", "xyz", 0.0),
    ],
)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(reference, candidate, expected):
    assert metrics.rouge_l(reference, candidate) == pytest.approx(expected)


def test_an_answer_counts_as_whole_words_only():
    assert metrics.contains_answer("It's Paris, of course!", ["paris"])
    assert metrics.contains_answer("There are seven of them.", ["7"])
    assert not metrics.contains_answer("Comparison is the thief of joy.", ["paris"])


def test_words_without_a_letter_or_digit_do_not_count():
    assert metrics.count_words("... - !") == 0
    assert metrics.count_words("Yes - 3 of them.") == 4


def test_bootstrap_gives_the_statistic_and_an_interval_around_it():
    values = list(np.random.default_rng(0).normal(10.0, 2.0, 400))
    found = metrics.bootstrap(values, metrics.mean)
    assert found.value == pytest.approx(np.mean(values))
    half = 1.96 * np.std(values) / np.sqrt(len(values))
    assert found.low == pytest.approx(found.value - half, abs=0.05)
    assert found.high == pytest.approx(found.value + half, abs=0.05)
    assert found == metrics.bootstrap(values, metrics.mean), "the same seed gives the same interval"


def test_bootstrap_of_nothing_is_refused():
    with pytest.raises(DataError, match="test set is empty"):
        metrics.bootstrap([], metrics.mean)


def test_percentile_interpolates():
    assert metrics.percentile([1, 2, 3, 4], 50) == 2.5
