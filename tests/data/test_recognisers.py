from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from duologue.data.recognisers import WhisperRecogniser
from duologue.errors import DataError


@pytest.fixture
def whisper(monkeypatch, tmp_path):
    """A folder that looks like a model, and the calls that the library gets."""
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).touch()
    calls: list[tuple] = []

    class WhisperModel:
        def __init__(self, folder, **options):
            calls.append((folder, options))

        def transcribe(self, audio, **options):
            calls.append((audio, options))
            return [SimpleNamespace(text=" Hello"), SimpleNamespace(text=" there. ")], None

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=WhisperModel))
    return tmp_path, calls


def test_a_judge_searches_wider_and_anyone_hears_at_16_kilohertz(whisper):
    folder, calls = whisper
    judge = WhisperRecogniser(folder, threads=3, beam=5)
    assert judge.transcribe(np.zeros(24_000, np.float32), 24_000) == "Hello there."
    WhisperRecogniser(folder).transcribe(np.zeros(800, np.float32), 16_000)
    (_, made), (audio, heard), (_, made_plain), (_, heard_plain) = calls
    assert (made["cpu_threads"], heard["beam_size"], len(audio)) == (3, 5, 16_000)
    assert (made_plain["cpu_threads"], heard_plain["beam_size"]) == (1, 1)


def test_nothing_is_heard_in_no_samples(whisper):
    assert WhisperRecogniser(whisper[0]).transcribe(np.zeros(0, np.float32), 16_000) == ""


def test_words_are_bounded_by_time_and_by_what_the_decoder_has_room_for(whisper):
    folder, calls = whisper
    recogniser = WhisperRecogniser(folder)
    for seconds in (1, 29, 90):
        recogniser.transcribe(np.zeros(16_000 * seconds, np.float32), 16_000)
    most = [options["max_new_tokens"] for _, options in calls[1:]]
    assert most[0] < most[1] <= most[2] < 440  # Whisper has 448 places, some of them for its prompt


def test_a_folder_without_a_model_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(DataError, match=r"without model\.bin, tokenizer\.json"):
        WhisperRecogniser(tmp_path)
