"""Utterances as sound and words: without silence around, longer by pauses, cut at a word, said once."""

from __future__ import annotations

import numpy as np
import pytest
from fake_speakers import ASSISTANT, LETTER, RATE, USERS, Hum, TimedHum

from duologue.data.dialogue.clips import AFTER_WORD, EDGE, FADE, Clips, trimmed
from duologue.errors import DataError

TEXT = "one seven, three ten"  # words of 3, 5, 5 and 3 letters


@pytest.fixture
def clip():
    return Clips(speakers={"hum": TimedHum()}).get(ASSISTANT, TEXT, 0)


def sounding(audio_N):
    """Seconds with sound in them."""
    return np.abs(audio_N[: len(audio_N) // 240 * 240]).reshape(-1, 240).max(1).astype(float) > 0.005


def test_silence_around_is_cut_off_and_words_move_with_the_sound(clip):
    assert clip.text == TEXT and clip.words[0].start == pytest.approx(EDGE, abs=0.002)
    assert clip.seconds - clip.words[-1].end == pytest.approx(EDGE, abs=0.011)
    assert len(clip.audio_N) / LETTER == pytest.approx(16 + 5 + 2 * EDGE * 20, abs=0.3)


def test_a_pause_lengthens_the_silence_to_what_was_asked(clip):
    paused = clip.with_pauses({0: 0.5, 1: 0.3})
    silences = [b.start - a.end for a, b in zip(paused.words, paused.words[1:], strict=False)]
    np.testing.assert_allclose(silences, [0.5, 0.3, 0.05], atol=1e-3)
    assert sounding(paused.audio_N).sum() == pytest.approx(sounding(clip.audio_N).sum(), abs=3)
    for word in paused.words:
        assert sounding(paused.audio_N)[round(word.start * 100) + 1 : round(word.end * 100) - 1].all()


def test_a_silence_that_is_longer_already_stays(clip):
    assert clip.with_pauses({1: 0.1}) is clip  # the comma is 0.15 s
    assert clip.with_pauses({}) is clip


def test_a_cut_falls_silent_behind_a_word(clip):
    cut = clip.cut_after(1)
    assert cut.text == "one seven,"
    assert cut.seconds == pytest.approx(cut.words[-1].end + AFTER_WORD, abs=1e-3)
    assert abs(cut.audio_N[-1]) < 1e-6
    assert clip.cut_after(3) is clip


def test_a_cut_in_running_speech_fades_and_lets_little_of_the_next_word_through():
    hum = TimedHum()
    audio, words = hum.speak_words("onetwo", 0)
    halves = [words[0]._replace(text="one", end=words[0].start + 0.15), words[0]._replace(start=words[0].start + 0.15)]
    cut = trimmed(audio, halves).cut_after(0)
    assert cut.seconds <= cut.words[0].end + EDGE + 1e-3
    assert np.abs(cut.audio_N[-round(FADE * RATE / 4) :]).max() < 0.03


def test_what_is_said_again_is_not_synthesised_again():
    hum = TimedHum()
    clips = Clips(speakers={"hum": hum})
    first, second, other = clips.get(ASSISTANT, TEXT, 0), clips.get(ASSISTANT, TEXT, 0), clips.get(ASSISTANT, TEXT, 1)
    assert len(hum.said) == 2 and clips.counted(ASSISTANT, TEXT, 0)
    np.testing.assert_array_equal(first.audio_N, second.audio_N)
    assert len(other.audio_N) == len(first.audio_N) and (other.audio_N != first.audio_N).any()


def test_the_oldest_is_forgotten_and_comes_back_the_same():
    hum = TimedHum()
    clips = Clips(speakers={"hum": hum}, most_bytes=60_000)
    first = clips.get(ASSISTANT, TEXT, 0)
    clips.get(ASSISTANT, TEXT, 1)
    again = clips.get(ASSISTANT, TEXT, 0)
    assert len(hum.said) == 3
    np.testing.assert_array_equal(first.audio_N, again.audio_N)


def test_words_of_a_speaker_that_does_not_count_are_spread_at_any_rate():
    hum = Hum("drone")
    hum.sample_rate = 16_000  # so all lasts half as long again
    clips = Clips(speakers={"drone": hum})
    clip = clips.get(USERS[0], TEXT, 0)
    assert not clips.counted(USERS[0], TEXT, 0) and clip.text == TEXT
    assert clip.seconds == pytest.approx(1.5 * 21 / 20 + 2 * EDGE, abs=0.05)


def test_a_synthesiser_without_sound_is_an_error():
    with pytest.raises(DataError, match="no sound"):
        trimmed(np.zeros(RATE, np.float32), TimedHum().speak_words("a", 0)[1])
