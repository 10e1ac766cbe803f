"""Long talks, crowds, other throats, and blanks: what is asked for happens and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from duologue.audio.features import SAMPLE_RATE
from duologue.train.listen_augment import Utterance, bent, blanked, in_company, joined


def test_joined_clips_keep_every_word_and_every_sample():
    rng = np.random.default_rng(0)
    clips = [
        Utterance(np.full(int(rng.uniform(1, 3) * SAMPLE_RATE), n + 1, np.int16), (n,) if n % 5 else ())
        for n in range(40)
    ]
    for seed in range(5):
        made = joined(clips, np.random.default_rng(seed), most_pieces=3)
        assert len(made) < len(clips) and max(len(row.ids) for row in made) <= 3
        assert sorted(piece for row in made for piece in row.ids) == [n for n in range(40) if n % 5]
        heard = np.concatenate([row.audio for row in made])
        assert [int((heard == n + 1).sum()) for n in range(40)] == [len(clip.audio) for clip in clips]
        for row in made:  # the words in the order in which they are said
            order = [value - 1 for value, _ in itertools.groupby(row.audio.tolist()) if value]
            assert tuple(n for n in order if n % 5) == row.ids
            assert len(row.audio) <= 27 * SAMPLE_RATE and row.audio[-1] != 0


def test_company_is_as_far_below_the_speech_as_drawn_and_leaves_the_others_alone():
    rng = np.random.default_rng(1)
    clips = [Utterance(rng.normal(0, 3_000, 16_000 + 100 * n).astype(np.int16), (n,)) for n in range(40)]
    clips.append(Utterance(np.zeros(16_000, np.int16), ()))
    made = in_company(clips, rng, share=0.5)
    assert [row.ids for row in made] == [row.ids for row in clips]
    added = [after.audio.astype(float) - before.audio for before, after in zip(clips, made, strict=True)]
    ratios = [
        20 * np.log10(before.audio.std() / extra.std())
        for before, extra in zip(clips, added, strict=True)
        if extra.any()
    ]
    assert 10 < len(ratios) < 30 and min(ratios) > 3.5 and max(ratios) < 25.5
    assert not made[-1].audio.any()  # behind silence nobody is put, there is no level to go by


def test_bending_moves_the_bands_of_each_clip_by_its_own_ratio():
    features = torch.arange(80.0).view(1, 80, 1).repeat(3, 1, 5)
    out = bent(features, torch.tensor([1.0, 0.9, 1.1]))
    assert torch.equal(out[0], features[0])
    torch.testing.assert_close(out[1, :, 0], torch.arange(80) * 0.9)
    torch.testing.assert_close(out[2, :, 3], (torch.arange(80) * 1.1).clamp(max=79))


@pytest.mark.parametrize("frames,bands", [(16, 0), (0, 12), (16, 12)])
def test_blanks_are_no_wider_than_asked_and_inside_the_clip(frames, bands):
    features, length = torch.rand(64, 80, 900) + 1, torch.full((64,), 900)
    length[0] = 20
    out = blanked(features, length, frames=frames, bands=bands)
    in_time, floor = (out == 0).all(1), features.amin((1, 2))[:, None, None]
    in_bands = ((out == floor) | (out == 0)).all(2)
    kept = ~(in_time[:, None] | in_bands[..., None])
    assert torch.equal(out[kept], features[kept])
    assert in_time.sum(1).max() <= 3 * frames and in_bands.sum(1).max() <= max(bands, 0)
    assert in_time.any() == bool(frames) and in_bands.any() == bool(bands)
    assert not in_time[0, 20:].any()
