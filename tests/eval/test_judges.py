"""The judges: what they are given is cut and refused as it should be."""

import numpy as np
import pytest

from duologue.errors import CheckpointError, DataError
from duologue.eval import judges
from duologue.eval.judges import DNSMOS_SECONDS, Dnsmos, WhisperJudge


def test_short_audio_is_repeated_to_fill_one_window():
    ramp = np.linspace(-1, 1, 16_000, dtype=np.float32)
    (window,) = judges.dnsmos_windows(ramp)[:1]
    assert len(window) == int(DNSMOS_SECONDS * 16_000)
    np.testing.assert_array_equal(window[16_000:32_000], ramp)


def test_long_audio_has_a_window_a_second():
    windows = judges.dnsmos_windows(np.arange(13 * 16_000, dtype=np.float32))
    assert [int(window[0]) // 16_000 for window in windows] == [0, 1, 2, 3]


def test_nothing_cannot_be_scored():
    with pytest.raises(DataError, match="got none"):
        judges.dnsmos_windows(np.zeros(0, np.float32))


def test_clean_tone_scores_differently_from_noise():
    quality = Dnsmos()
    rng = np.random.default_rng(0)
    t = np.arange(16_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * n * t) / n for n in range(1, 20)) * (np.sin(2 * np.pi * 3 * t) > 0) * 0.1
    scores = [quality.score(voice + level * rng.standard_normal(16_000), 16_000) for level in (0.0, 0.1)]
    assert all(1 <= score <= 5 for score in scores)
    assert scores[0] > scores[1]


def test_a_folder_without_a_model_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.bin is missing"):
        WhisperJudge(tmp_path)


def test_resampling_keeps_the_length_in_seconds_and_the_range():
    audio = judges.resample(np.full(24_000, 1.5, np.float32), 24_000, 16_000)
    assert len(audio) == 16_000 and audio.max() <= 1.0 and audio.dtype == np.float32
