"""When words are said: counted by hibari-tts, or spread over the sound."""

from __future__ import annotations

import numpy as np
import pytest
from fake_speakers import LETTER, RATE, Hum, TimedHum

from duologue.data.speakers import Voice, make_speaker
from duologue.data.word_times import FRAMES, QUIET_DB, Word, counted_words, loudness, say, sound_span, spread_words

TEXT = "Stop! Cats, dogs and birds don't like it. Do ten foxes?"


@pytest.fixture(scope="module")
def speaker():
    return make_speaker(Voice(kind="hibari", name="low", pitch=(0.6, 0.6), formant=(0.9, 0.9), speed=(0.8, 1.2)))


def test_hibari_tells_the_words_it_says(speaker):
    said = say(speaker, TEXT, 5)
    assert said.counted and [word.text for word in said.words] == TEXT.split()
    np.testing.assert_array_equal(said.audio_N, speaker.speak(TEXT, 5))  # the same sound as without times
    times = [time for word in said.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[-1] <= len(said.audio_N) / RATE


def test_hibaris_words_begin_where_sound_does(speaker):
    """Behind a silence, loudness rises within 50 ms of the word's beginning."""
    said = say(speaker, TEXT, 6)
    levels = loudness(said.audio_N, RATE)
    for word in said.words:
        if word.text in ("Stop!", "Cats,", "Do"):
            at = round(word.start * FRAMES)
            assert levels[at - 12 : at - 5].max() < QUIET_DB < levels[at - 4 : at + 6].max(), word


def test_hibari_tells_the_symbols_of_its_words(speaker):
    audio_N, symbols = speaker.speak_symbols(TEXT, 5)
    np.testing.assert_array_equal(audio_N, speaker.speak(TEXT, 5))
    times = [time for symbol in symbols for time in (symbol.start, symbol.end)]
    assert times == sorted(times) and {len(symbol.text) for symbol in symbols} == {1}
    starts = {round(symbol.start, 6) for symbol in symbols}
    assert {round(word.start, 6) for word in speaker.speak_words(TEXT, 5)[1]} <= starts


def test_words_that_are_written_otherwise_than_said_are_kept_as_said(speaker):
    said = say(speaker, "It is 7:30 - or 8.", 1)
    assert [word.text for word in said.words] == ["It", "is", "seven", "thirty", "or", "8."]


def test_symbols_are_shared_out_over_sentences():
    pieces = [("ab c.", np.arange(6.0), 0.0), ("d,", np.array([0.5, 1.0, 2.0]), 5.0)]
    words = counted_words([("one", "ab"), ("two.", "c."), ("-", ""), ("three,", "d,")], pieces)
    assert words == [Word("one", 0.0, 2.0), Word("two.", 3.0, 4.0), Word("three,", 5.5, 6.0)]


def test_words_are_spread_where_nobody_counts():
    hum = Hum()
    said = say(hum, "one three, a seventh", 0)
    true = TimedHum().speak_words("one three, a seventh", 0)[1]
    assert not said.counted and [word.text for word in said.words] == [word.text for word in true]
    np.testing.assert_allclose([w.start for w in said.words], [w.start for w in true], atol=0.12)
    ends = [said.words[0].start - true[0].start, said.words[-1].end - true[-1].end]
    np.testing.assert_allclose(ends, 0.0, atol=0.011)


def test_silence_has_no_loudest_place():
    assert sound_span(np.zeros(RATE, np.float32), RATE) == (0.0, 1.0)
    assert spread_words("", np.zeros(LETTER, np.float32), RATE) == []
