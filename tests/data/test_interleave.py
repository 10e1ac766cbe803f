"""Where the tokens of words stand, in cases made by hand. Frames are 80 ms; tokens are the numbers of letters."""

from __future__ import annotations

import pytest

from duologue.data.interleave import interleave, window
from duologue.data.word_times import Word
from duologue.errors import ConfigError

P, E, U = 3, 0, -1  # padding, its end, unknown
A, B, C, D = 65, 66, 67, 68


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def row(words, frames=8, **options):
    return interleave(words, encode=encode, frames=frames, **options)


def word(text, frame, length=2.0):
    """A word that begins in the middle of a frame and lasts some frames."""
    return Word(text, (frame + 0.5) * 0.08, (frame + 0.5 + length) * 0.08)


def test_a_words_tokens_begin_in_its_frame_after_the_end_of_the_padding():
    assert row([word("AB", 3)]) == [P, P, E, A, B, P, P, P]


def test_a_word_in_the_first_frame_has_no_padding_to_end():
    assert row([word("AB", 0)]) == [A, B, P, P, P, P, P, P]


def test_words_that_touch_have_nothing_between_them():
    assert row([word("AB", 1), word("CD", 3)]) == [E, A, B, C, D, P, P, P]


def test_a_single_frame_between_words_says_that_one_is_coming():
    assert row([word("AB", 1), word("C", 4)]) == [E, A, B, E, C, P, P, P]


def test_a_new_word_cuts_an_unfinished_one():
    assert row([word("ABCD", 1, length=1), word("D", 3)]) == [E, A, B, D, P, P, P, P]


def test_of_two_words_in_one_frame_the_later_stays():
    first, second = Word("AB", 0.16, 0.2), Word("C", 0.2, 0.4)
    assert row([second, first]) == [P, E, C, P, P, P, P, P]


def test_in_a_queue_no_token_is_lost():
    words = [word("ABC", 1, length=1), word("D", 2), word("A", 6)]
    assert row(words, queue=True) == [E, A, B, C, D, E, A, P]


def test_with_a_lead_words_come_as_soon_as_their_turn_has_begun():
    words = [word("A", 2), word("BC", 4), word("D", 9)]
    assert row(words, 13, queue=True) == [P, E, A, E, B, C, P, P, E, D, P, P, P]
    assert row(words, 13, queue=True, lead=0.24) == [P, E, A, B, C, E, D, P, P, P, P, P, P]
    assert row(words, 13, queue=True, lead=0.8) == [P, E, A, B, C, D, P, P, P, P, P, P, P]
    assert row(words, 13, queue=True, lead=0.8, ahead=0.08) == [E, A, B, C, D, P, P, P, P, P, P, P, P]


def test_a_lead_does_not_reach_over_a_silence():
    words = [word("A", 0), word("B", 3), word("C", 19), word("D", 22)]
    assert row(words, 24, queue=True, lead=4.0) == [A, B, *[P] * 16, E, C, D, P, P, P]


def test_a_lead_needs_words_that_wait():
    with pytest.raises(ConfigError, match="queue=True"):
        row([], lead=0.5)
    with pytest.raises(ConfigError, match="lead from 0"):
        row([], queue=True, lead=-0.5)


def test_what_does_not_fit_at_the_end_is_cut():
    assert row([word("ABCD", 6)]) == [P, P, P, P, P, E, A, B]
    assert row([word("ABCD", 8), word("D", 20)]) == [P] * 8


def test_a_word_without_duration_or_tokens_is_left_out():
    assert row([Word("A", 0.2, 0.2), Word("B", 0.3, 0.2), word("", 5)]) == [P] * 8


def test_times_on_the_edge_of_a_frame_belong_to_it():
    assert row([Word("A", 2 / 12.5, 0.3)], frames=4) == [P, E, A, P]


def test_text_ahead_of_the_sound():
    assert row([word("A", 1), word("B", 4)], ahead=0.16) == [A, E, B, P, P, P, P, P]
    assert row([word("A", 0, length=1), word("B", 4)], ahead=0.16) == [P, E, B, P, P, P, P, P]  # it is over by then


def test_text_behind_the_sound_is_unknown_at_first():
    assert row([word("A", 0), word("B", 4)], ahead=-0.16) == [U, U, A, P, P, E, B, P]


def test_where_nothing_is_known_there_is_no_token():
    assert row(None) == [U] * 8
    assert row([word("A", 1)], known=5) == [E, A, P, P, P, U, U, U]


def test_other_tokens_and_rates():
    assert row([Word("A", 1.0, 1.4)], frames=4, frame_rate=2.0, pad=9, end_of_pad=8) == [9, 8, A, 9]
    assert row([], frames=0) == []
    with pytest.raises(ConfigError, match="above 0"):
        row([], frame_rate=0.0)


def test_a_window_holds_the_words_that_begin_in_it():
    words = [Word("A", 0.5, 1.2), Word("B", 1.0, 1.2), Word("C", 2.9, 3.4), Word("D", 3.0, 3.1)]
    assert window(words, start=1.0, seconds=2.0) == [Word("B", 0.0, pytest.approx(0.2)), Word("C", 1.9, 2.4)]
