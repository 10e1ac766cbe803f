"""What the teacher says fits together: units, their lengths, prosody, frames and sound."""

from __future__ import annotations

import numpy as np
import pytest

from duologue.data.teacher import HOP, VOICED, HibariTeacher, unit_prosody, with_output
from duologue.errors import DataError

TEXT = "Seven zebras sleep. Is a storm coming?"


@pytest.fixture(scope="module")
def teacher() -> HibariTeacher:
    return HibariTeacher()


@pytest.fixture(scope="module")
def spoken(teacher):
    return teacher.speak(TEXT, seed=1)


def test_lengths_agree(spoken):
    frames = int(spoken.frames_U.sum())
    assert len(spoken.units) == len(spoken.frames_U) == len(spoken.prosody_UP)
    assert frames == len(spoken.frames.f0_F) == len(spoken.frames.stacked())
    assert len(spoken.audio_N) == frames * HOP
    assert (spoken.frames_U > 0).all()


def test_units_are_those_of_the_text(teacher, spoken):
    assert spoken.units == teacher.units(TEXT)
    assert teacher.inventory.decode(spoken.units).count(" ") == 6  # one between sentences, too


def test_no_phonetic_symbol_of_plain_text_is_lost(teacher):
    text = "A bird, the measure of joy (you know): “why not?” — 1,234 boats; Zhirinovsky's xylophone... Tough writer!"
    wanted = " ".join(symbols.strip() for symbols in teacher._text.phonemize(text))
    assert teacher.inventory.decode(teacher.units(text)) == wanted


def test_units_are_heard_where_they_stand(teacher, spoken):
    """Vowels are loud and have a pitch in their own frames, the pause between sentences is quiet."""
    symbols = [teacher.inventory.symbols[unit] for unit in spoken.units]
    vowels = [place for place, symbol in enumerate(symbols) if symbol in "ɛəiɔ" and place < len(symbols) - 2]
    pause = symbols.index(".") + 1
    assert (spoken.prosody_UP[vowels, 1] > np.log(VOICED)).all()
    assert spoken.prosody_UP[vowels, 2].mean() > spoken.prosody_UP[pause, 2] + 2
    assert spoken.prosody_UP[pause, 0] == spoken.prosody_UP[:, 0].max()


def test_says_the_same_for_the_same_seed_and_faster_when_asked(teacher, spoken):
    np.testing.assert_array_equal(teacher.speak(TEXT, seed=1).audio_N, spoken.audio_N)
    assert len(teacher.speak(TEXT, speed=1.3).audio_N) < 0.9 * len(spoken.audio_N)


def test_prosody_is_the_mean_over_each_units_frames():
    f0_F = np.array([0, 100, 200, 0, 0], np.float32)
    amplitude_F = np.array([0.1, 0.1, 1.0, 1.0, 0.0], np.float32)
    got = unit_prosody(np.array([3, 1, 0, 1]), f0_F, amplitude_F)
    pitch = (np.log(100) + np.log(200)) / 2
    want = [[np.log(3), pitch, np.log(0.1) * 2 / 3], [0, 0, 0], [np.log(0.5), 0, np.log(1e-4)], [0, 0, np.log(1e-4)]]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_refuses_durations_that_do_not_add_up():
    with pytest.raises(DataError, match="4 frames for 5"):
        unit_prosody(np.array([4]), np.ones(5, np.float32), np.ones(5, np.float32))


@pytest.mark.parametrize("text", ["", "   \n", "€"])
def test_nothing_to_say_is_an_error(teacher, text):
    if teacher.sentences(text):
        pytest.fail("the text was meant to hold no speech")
    with pytest.raises(DataError, match="nothing to say"):
        teacher.speak(text)


def test_another_output_is_appended_to_a_model():
    name = "x" * 200  # long enough for lengths of two bytes
    added = with_output(b"", name)
    assert added[:3] == bytes([7 << 3 | 2, 0xCE, 0x01])  # graph, 206 bytes
    assert added.endswith(b"\x0a\xc8\x01" + name.encode())
