"""Test sets are the same every time, made once, and worsened by the amount that they say."""

import numpy as np
import pytest

from duologue.data.audio_augment import active_rms
from duologue.errors import DataError
from duologue.eval import testsets
from duologue.eval.testsets import CONDITIONS


class Buzz:
    """A speaker that buzzes for as long as the text is."""

    sample_rate = 8_000

    def __init__(self, name, hertz):
        self.name, self.hertz, self.asked = name, hertz, 0

    def speak(self, text, seed):
        self.asked += 1
        t = np.arange(len(text) * 400) / self.sample_rate
        return (0.3 * np.sign(np.sin(2 * np.pi * self.hertz * t))).astype(np.float32)


QUESTIONS = [f"Is this question number {number}?" for number in range(20)]


def speakers():
    return [Buzz("low", 110), Buzz("high", 220), Buzz("third", 330)]


def test_a_set_is_made_once_and_then_read_back(tmp_path):
    voices = speakers()
    first = testsets.synthetic(QUESTIONS[:4], voices, cache=tmp_path)
    asked = sum(voice.asked for voice in voices)
    again = testsets.synthetic(QUESTIONS[:4], voices, cache=tmp_path)
    assert again == first and sum(voice.asked for voice in voices) == asked
    assert [clip.text for clip in first] == QUESTIONS[:4]


def test_two_machines_make_the_same_set(tmp_path):
    one = testsets.synthetic(QUESTIONS[:5], speakers(), cache=tmp_path / "one")
    two = testsets.synthetic(QUESTIONS[:5], speakers(), cache=tmp_path / "two")
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.audio(), second.audio())


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_voice_meets_every_condition(tmp_path, count):
    voices = [*speakers(), Buzz("fourth", 440)][:count]
    clips = testsets.synthetic(QUESTIONS[: 5 * count], voices, cache=tmp_path)
    assert {(clip.voice, clip.condition) for clip in clips} == {
        (voice.name, condition) for voice in voices for condition in CONDITIONS
    }


def test_a_set_that_was_cut_short_is_made_anew(tmp_path):
    class Breaks(Buzz):
        def speak(self, text, seed):
            if self.asked == 2:
                raise DataError("no voice")
            return super().speak(text, seed)

    with pytest.raises(DataError):
        testsets.synthetic(QUESTIONS[:4], [Breaks("low", 110)], cache=tmp_path, conditions=["clean"])
    assert len(testsets.synthetic(QUESTIONS[:4], [Buzz("low", 110)], cache=tmp_path, conditions=["clean"])) == 4


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_change_the_sound_but_not_its_length(condition):
    speech = Buzz("", 150).speak("hello there, how are you", 0).repeat(2)
    clean = testsets.worsen(speech, "clean", np.random.default_rng(1))
    found = testsets.worsen(speech, condition, np.random.default_rng(1), others=[speech[::-1]])
    assert found.shape == clean.shape and np.abs(found).max() <= 1
    if condition != "clean":
        likeness = np.dot(found, clean) / (np.linalg.norm(found) * np.linalg.norm(clean))
        assert likeness < 0.99


def test_an_unknown_condition_is_refused():
    with pytest.raises(DataError, match="clean, room"):
        testsets.worsen(np.ones(1_000, np.float32), "underwater", np.random.default_rng(0))


@pytest.mark.parametrize("kind", testsets.NOISES)
def test_noise_is_as_far_below_the_speech_as_asked(kind):
    speech = Buzz("", 150).speak("hello there, how are you", 0).repeat(2)
    other = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    noisy = testsets.add_noise(speech, kind, 10.0, np.random.default_rng(0), others=[other])
    scale = np.dot(noisy, speech) / np.dot(speech, speech)
    noise = noisy / scale - speech
    assert 20 * np.log10(active_rms(speech) / np.sqrt(np.mean(noise**2))) == pytest.approx(10.0, abs=0.5)


def test_a_room_starts_with_the_direct_sound_and_dies_away():
    response = testsets.shoebox(np.random.default_rng(0))
    assert response[0] == 1.0
    half = len(response) // 2
    assert np.sum(response[half:] ** 2) < 0.1 * np.sum(response[:half] ** 2)


def test_a_broken_line_of_questions_is_named(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "One?"}\n{"text": "Two?"}\n')
    with pytest.raises(DataError, match=r"line 2.*question"):
        testsets.read_lines(file, "question")
    with pytest.raises(DataError, match="--data"):
        testsets.read_lines(tmp_path / "none.jsonl", "question")
