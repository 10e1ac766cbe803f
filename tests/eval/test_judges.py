"""The judges: what they are given is cut and refused as it should be."""

import numpy as np
import pytest

from duologue.errors import DataError
from duologue.eval import judges
from duologue.eval.judges import DNSMOS_SECONDS, Dnsmos


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


def test_the_score_is_the_mean_of_the_fitted_overall_opinions():
    class Session:
        def run(self, outputs, inputs):
            assert inputs["input_1"].shape == (1, int(DNSMOS_SECONDS * 16_000))
            raw = 3.0 if inputs["input_1"][0, 0] < 0.5 else 2.0
            return [[[9.0, 9.0, raw]]]

    quality = object.__new__(Dnsmos)
    quality.session = Session()
    audio = np.zeros(11 * 16_000, np.float32)
    audio[16_000] = 1.0  # the first sample of the second of two windows
    fitted = [-0.06766283 * raw**2 + 1.11546468 * raw + 0.04602535 for raw in (3.0, 2.0)]
    assert quality.score(audio, 16_000) == pytest.approx(np.mean(fitted))


def test_resampling_keeps_the_length_in_seconds_and_the_range():
    audio = judges.resample(np.full(24_000, 1.5, np.float32), 24_000, 16_000)
    assert len(audio) == 16_000 and audio.max() <= 1.0 and audio.dtype == np.float32
