"""What is measured on a full-duplex line, against intervals worked out by hand."""

import math

import pytest

from duologue.errors import DataError
from duologue.eval.duplex_measures import (
    as_published,
    backchannels,
    histogram,
    js_divergence,
    resized,
    stop_latency,
    takes_over,
    turn_taking,
)


def words(count):
    return lambda start, end: count


@pytest.mark.parametrize(
    ("spans", "count", "over"),
    [
        ([], 0, False),
        ([(1.0, 1.9)], 3, False),  # short, and a few words: a sign of listening
        ([(1.0, 1.9)], 4, True),
        ([(1.0, 2.0)], 1, True),
        ([(1.0, 1.3), (5.0, 5.3)], 2, True),  # from the first sound to the last
        ([(1.0, 9.0)], 0, False),  # a noise
    ],
)
def test_a_turn_is_long_or_has_words(spans, count, over):
    assert takes_over(spans, words(count)) is over


@pytest.mark.parametrize(
    ("own", "over", "latency"),
    [
        ([(3.4, 6.0)], True, 0.4),
        ([(2.5, 6.0)], True, 0.0),  # it was first
        ([(1.0, 2.0)], False, None),  # and said nothing afterwards
        ([(1.0, 2.0), (4.0, 4.5)], False, None),
        ([(1.0, 2.0), (4.0, 4.5), (5.0, 6.0)], True, 1.0),
        ([], False, None),
    ],
)
def test_a_turn_is_taken_after_the_users_end(own, over, latency):
    taken = turn_taking(own, words(2), user_end=3.0, end=10.0)
    assert taken.over is over
    assert taken.latency == (None if latency is None else pytest.approx(latency))


def test_what_goes_on_since_before_an_interruption_is_no_answer_to_it():
    own = [(2.0, 7.0), (8.5, 10.0)]
    assert turn_taking(own, words(5), user_end=6.0, end=12.0, since=4.0) == (True, 2.5)
    assert turn_taking(own[:1], words(5), user_end=6.0, end=12.0, since=4.0) == (False, None)
    assert stop_latency(own, 4.0) == 3.0
    assert stop_latency(own, 8.0) is None


def test_backchannels_are_short():
    said = {(1.0, 1.4): 1, (3.0, 3.8): 2, (5.0, 5.9): 3}
    found = backchannels(list(said), lambda start, end: said[start, end], seconds=12.0)
    assert found.signs == ((1.0, 1.4), (3.0, 3.8)) and found.over and found.a_minute == 10.0
    assert not backchannels([(1.0, 1.4)], words(1), seconds=12.0).over
    assert backchannels([(1.0, 2.0)], words(1), seconds=12.0).over
    nothing = backchannels([], words(0), seconds=12.0)
    assert not nothing.over and nothing.signs == () and nothing.a_minute == 0.0


def test_a_histogram_counts_every_window_that_is_touched():
    shares = histogram([(0.3, 0.5), (0.41, 0.45)], 0.9)
    assert len(shares) == 5 and sum(shares) == pytest.approx(1.0)
    assert shares == pytest.approx([0, 1 / 3, 2 / 3, 0, 0], abs=1e-9)


def test_divergence_in_bits_and_as_published():
    assert js_divergence([1, 0], [0, 1]) == 1.0
    assert js_divergence([0.2, 0.8], [2, 8]) == pytest.approx(0.0, abs=1e-12)
    expected = 0.5 * (0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25)) + 0.5 * math.log2(1 / 0.75)
    assert js_divergence([0.5, 0.5], [1.0, 0.0]) == pytest.approx(expected)
    assert as_published(1.0) == pytest.approx(math.sqrt(math.log(2)))
    with pytest.raises(DataError, match="got 2 and 3"):
        js_divergence([0.5, 0.5], [0.2, 0.3, 0.5])


def test_a_distribution_takes_another_number_of_windows():
    assert resized([0.0, 1.0], 3) == [0.0, 0.5, 1.0]
    assert resized([0.25] * 4, 4) == [0.25] * 4
