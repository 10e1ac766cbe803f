"""Any chunks in, whole frames out."""

from __future__ import annotations

import numpy as np
import pytest

from duologue.audio.frames import Framer


@pytest.mark.parametrize("cut", [[1000], [1] * 1000, [7, 493, 0, 500], [640, 360]])
def test_any_chunks_give_the_same_frames(cut):
    samples = np.arange(1000, dtype=np.float32)
    framer, frames, at = Framer(320), [], 0
    for size in cut:
        frames += list(framer.push(samples[at : at + size]))
        at += size
    np.testing.assert_array_equal(np.concatenate(frames), samples[:960])
    assert framer.held == 40
    last = framer.flush()
    np.testing.assert_array_equal(last, np.r_[samples[960:], np.zeros(280)])
    assert framer.flush() is None and framer.held == 0


def test_the_callers_buffer_may_be_reused():
    framer, buffer = Framer(4), np.ones(3, np.float32)
    assert list(framer.push(buffer)) == []
    buffer[:] = 9
    np.testing.assert_array_equal(next(framer.push(buffer)), [1, 1, 1, 9])
