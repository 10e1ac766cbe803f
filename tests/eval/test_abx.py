import numpy as np
import pytest

from duologue.errors import DataError
from duologue.eval import abx
from duologue.eval.abx import Token, distance, error_rates, tokens


def said(middle: str, voice: str, features: list[list[float]]) -> Token:
    return Token(("t", middle, "n"), voice, np.array(features))


def test_the_distance_is_along_the_cheapest_alignment():
    a, b = np.array([[1.0, 0], [0, 1.0]]), np.array([[3.0, 0], [2.0, 0], [0, 0.1]])
    assert distance(a, b) == pytest.approx(0), "length of a vector and of a sound do not count"
    assert distance(a, b[::-1]) > 0.4
    assert distance(a[:1], a[1:]) == 1


def test_sounds_that_differ_are_told_apart_and_equal_ones_half_the_time():
    clear = [said("a", "x", [[1, 0]]), said("a", "x", [[1, 0.1]]), said("e", "x", [[0, 1]]), said("e", "x", [[0.1, 1]])]
    assert error_rates(clear, across=False) == [0, 0]
    mute = [said(phone, "x", [[1.0, 1.0]]) for phone in "aaee"]
    assert error_rates(mute, across=False) == [0.5, 0.5]


def test_a_voice_that_counts_for_more_than_the_phone_fails_across_voices_only():
    """Features that tell who speaks more than what is said."""
    found = [
        said(phone, voice, [[who, 0.1 * (phone == "a"), 1 - who + 0.01 * take]])
        for who, voice in ((0.0, "x"), (1.0, "y"))
        for phone in "ae"
        for take in range(2)
    ]
    assert error_rates(found, across=False) == [0, 0]
    assert min(error_rates(found, across=True)) > 0


def test_triphones_take_the_frames_whose_middle_is_theirs():
    phones = [("t", 0.0, 0.08), ("a", 0.08, 0.24), ("n", 0.24, 0.32), ("s", 0.32, 0.36)]
    found = tokens(phones, np.arange(5.0)[:, None], rate=12.5, voice="x")
    assert [token.phones for token in found] == [("t", "a", "n"), ("a", "n", "s")]
    assert found[0].frames_TD[:, 0].tolist() == [0, 1, 2, 3] and found[1].frames_TD[:, 0].tolist() == [1, 2, 3]


def test_sounds_without_a_pair_are_refused():
    with pytest.raises(DataError, match="no two triphones"):
        error_rates([said("a", "x", [[1.0]])], across=False)


def test_few_tokens_of_a_triphone_are_compared(monkeypatch):
    calls = []
    monkeypatch.setattr(abx, "distance", lambda a, b: calls.append(1) or 0.0)
    error_rates([said(phone, "x", [[1.0]]) for phone in "ae" for _ in range(9)], across=False)
    assert len(calls) <= 2 * 3 * (3 + 3)
